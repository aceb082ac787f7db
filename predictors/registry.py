"""From a model's spec to the predictor of its flavor."""

import importlib

from predictors.base import ModelSpec, Predictor
from predictors.bounds import Bounds
from predictors.errors import ModelNotLoadable
from predictors.flavors import FLAVORS, known_flavors


def make_predictor(model: ModelSpec, within: Bounds | None = None) -> Predictor:
    """The predictor for `model`, not yet loaded. Imports the flavor's library, and no other's.

    Args:
        within: where the files of the model have to lie, unless it is code; None: anywhere.

    Raises:
        ModelNotLoadable: the flavor is not known, or its class cannot be imported.
    """
    flavor = FLAVORS.get(model.flavor)
    if flavor is None:
        raise ModelNotLoadable(f"model.flavor {model.flavor!r} is not known; use {known_flavors()}")
    module, _, name = flavor.maker.partition(":")
    predictor: Predictor = getattr(importlib.import_module(module), name)(model, within)
    return predictor
