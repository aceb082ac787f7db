"""The trees on top of the modules of errors name every error of a package, each under what it is a kind of."""

import importlib
import pkgutil
import re
from types import ModuleType

import pytest

import launcher.errors
import predictors.errors
import transforms.errors

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
