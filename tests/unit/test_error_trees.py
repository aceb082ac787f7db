"""The trees on top of the modules of errors name every error of a package, each under what it is a kind of."""

import importlib
import inspect
import pickle
import pkgutil
import re
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import pytest

import launcher.errors
import predictors.errors
import transforms.errors
from launcher.errors import LauncherError, Problem

# A line of a tree: how deep it hangs, four characters a level, and the name.
LINE = re.compile(r"^((?:│   |    )*(?:├── |└── )|)([A-Z]\w+)(?: {2,}|$)", re.MULTILINE)
TREES = [launcher.errors, transforms.errors, predictors.errors]


def drawn(module: ModuleType) -> list[tuple[str, str | None]]:
    """(name, name of what it hangs on), line by line."""
    above: list[str] = []
    edges: list[tuple[str, str | None]] = []
    for branch, name in LINE.findall(module.__doc__ or ""):
        depth = len(branch) // 4
        above[depth:] = [name]
        edges.append((name, above[depth - 1] if depth else None))
    return edges


def classes(module: ModuleType, top: str) -> set[type]:
    """The error that the tree begins with and all below it, wherever in the package they are defined."""
    package = importlib.import_module(module.__name__.partition(".")[0])
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        # What Alembic runs, and nobody imports.
        if not found.name.endswith(".migrations.env"):
            importlib.import_module(found.name)

    def below(error: type) -> set[type]:
        return {error}.union(*(below(child) for child in error.__subclasses__()))

    return {error for error in below(getattr(module, top)) if error.__module__.startswith(package.__name__ + ".")}


@pytest.mark.parametrize("module", TREES, ids=lambda module: module.__name__)
def test_a_tree_is_that_of_the_classes(module: ModuleType) -> None:
    edges = drawn(module)
    top = edges[0][0]
    real = {
        (error.__name__, None if error.__name__ == top else error.__bases__[0].__name__)
        for error in classes(module, top)
    }

    assert len(edges) == len(set(edges))
    assert set(edges) == real


@pytest.mark.parametrize("module", TREES, ids=lambda module: module.__name__)
def test_errors_are_defined_where_their_tree_is_drawn(module: ModuleType) -> None:
    elsewhere = {error for error in classes(module, drawn(module)[0][0]) if error.__module__ != module.__name__}

    assert elsewhere == set()


# What an error of the launcher is made of, by the type of the argument.
MADE_OF: dict[Any, Any] = {
    str: "what was said",
    int: 3,
    int | None: 3,
    bool: True,
    tuple[str, ...]: ("running", "completing"),
    Sequence[Problem]: [Problem("input.path", "is missing; write one")],
}
LAUNCHERS = [
    error for error in vars(launcher.errors).values() if isinstance(error, type) and issubclass(error, LauncherError)
]


@pytest.mark.parametrize("error", LAUNCHERS, ids=lambda error: error.__name__)
def test_an_error_of_the_launcher_survives_pickling_with_all_that_it_says(error: type[LauncherError]) -> None:
    own = "__init__" in vars(error)
    parameters = inspect.signature(error).parameters.values() if own else []
    made = error(*[MADE_OF[each.annotation] for each in parameters] or ["what was said"])

    copy = pickle.loads(pickle.dumps(made))

    assert type(copy) is error
    assert copy.args == made.args
    assert vars(copy) == vars(made)
    assert str(copy) == str(made)
    assert "\n" not in str(made)
