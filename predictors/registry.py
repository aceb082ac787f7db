"""From a model's spec to the predictor of its flavor."""

from predictors.base import ModelSpec, Predictor
from predictors.errors import ModelNotLoadable


def make_predictor(model: ModelSpec) -> Predictor:
    """The predictor for `model`, not yet loaded. Imports the flavor's library, and no other's.

    Raises:
        ModelNotLoadable: the flavor is not known, or its class cannot be imported.
    """
    match model.flavor:
        case "onnx":
            from predictors.onnx import OnnxPredictor

            return OnnxPredictor(model.uri, model.features, pass_nulls=model.nulls == "pass")
        case "python":
            from predictors.python import PythonPredictor

            return PythonPredictor(model.uri, model.features)
    raise ModelNotLoadable(f"model.flavor {model.flavor!r} is not known; use onnx or python")
