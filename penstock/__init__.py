"""Penstock scores data with models in bulk, exactly once. What its users import is here:

    from penstock import Client, run, plan, read_manifest, RowsRejected

Each name is imported when it is first used. `python -m penstock` is the command line.
"""

import importlib
import sys
from typing import Any

# Where each name is from.
_FROM = {
    "Client": "launcher.client",
    "PenstockError": "launcher.client",
    "JobFailed": "penstock.running",
    "Result": "penstock.running",
    "plan": "penstock.planning",
    "run": "penstock.running",
    "RequestError": "launcher.errors",
    "LauncherError": "launcher.errors",
    "PipelineError": "transforms.errors",
    "read_manifest": "transforms.sinks.manifest",
    "ModelNotLoadable": "predictors.errors",
    "NothingScored": "predictors.errors",
    "OutOfMemory": "predictors.errors",
    "PredictorError": "predictors.errors",
    "RowsRejected": "predictors.errors",
    "SchemaMismatch": "predictors.errors",
    "Transient": "predictors.errors",
    "WrongAnswer": "predictors.errors",
}
__all__ = sorted(_FROM)


def __getattr__(name: str) -> Any:
    if name not in _FROM:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if _FROM[name] not in sys.modules:
        # Imported here alone, so that `import penstock` costs nothing.
        from penstock.hiding import hiding

        found = hiding(_packages_of(_FROM[name]))
        if found is not None:
            raise ImportError(found)
    value = getattr(importlib.import_module(_FROM[name]), name)
    globals()[name] = value
    return value


def _packages_of(module: str) -> tuple[str, ...]:
    """Our packages that a module of them imports."""
    below = ("launcher", "pipelines", "transforms", "predictors")
    package = module.partition(".")[0]
    if module == "launcher.client":
        return ("launcher", "predictors")
    return below[below.index(package) :] if package in below else below


def __dir__() -> list[str]:
    return sorted([*globals(), *_FROM])
