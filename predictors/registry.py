"""From a model's spec to the predictor of its flavor."""

from collections.abc import Mapping

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

            return OnnxPredictor(model.uri, model.features, model.nulls == "pass", within, model.outputs)
        case "python":
            from predictors.python import PythonPredictor

            if isinstance(model.features, Mapping):
                raise ModelNotLoadable(
                    f"model.features names inputs of model {model.uri}, and a class has none; list the columns instead"
                )
            return PythonPredictor(model.uri, model.features, model.args, model.outputs)
    raise ModelNotLoadable(f"model.flavor {model.flavor!r} is not known; use onnx or python")
