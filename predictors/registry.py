"""From a model's spec to the predictor of its flavor."""

from predictors.base import ModelSpec, Predictor
from predictors.bounds import Bounds
from predictors.errors import ModelNotLoadable


def make_predictor(model: ModelSpec, within: Bounds | None = None) -> Predictor:
    """The predictor for `model`, not yet loaded. Imports the flavor's library, and no other's.

    Args:
        within: where the files of the model have to lie, unless it is code; None: anywhere.

    Raises:
        ModelNotLoadable: the flavor is not known, or its class cannot be imported.
    """
    match model.flavor:
        case "onnx":
            from predictors.onnx import OnnxPredictor

            return OnnxPredictor(model.uri, model.features, pass_nulls=model.nulls == "pass", within=within)
        case "python":
            from predictors.python import PythonPredictor

            return PythonPredictor(model.uri, model.features)
    raise ModelNotLoadable(f"model.flavor {model.flavor!r} is not known; use onnx or python")
