"""The flavors of models, by the names that a spec gives them. The library of one is imported when its model is made."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Flavor:
    """One kind of model.

    Args:
        name: as a spec has it.
        maker: `module:function` of ours that makes a predictor, not yet loaded, of a `ModelSpec` and the `Bounds` of
            its files.
        uri: the uris of models that can be of no other flavor.
        runs_code: whether to load a model is to run code that its uri names; otherwise the uri is a file.
    """

    name: str
    maker: str
    uri: re.Pattern[str]
    runs_code: bool = False


FLAVORS = {
    flavor.name: flavor
    for flavor in (
        Flavor("onnx", "predictors.onnx:make", re.compile(r".*\.onnx", re.IGNORECASE | re.DOTALL)),
        Flavor("python", "predictors.python:make", re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*"), runs_code=True),
    )
}


def flavor_of(uri: str) -> str | None:
    """The flavor that a model's uri tells, if it does."""
    return next((flavor.name for flavor in FLAVORS.values() if flavor.uri.fullmatch(uri)), None)


def known_flavors() -> str:
    """Their names, for people."""
    *others, last = FLAVORS
    return f"{', '.join(others)} or {last}"
