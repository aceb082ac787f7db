"""Imports point one way: penstock, launcher, pipelines, transforms, predictors. All else is declared."""

import ast
import importlib.metadata
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LAYERS = ["penstock", "launcher", "pipelines", "transforms", "predictors"]
# Model libraries and Beam stay where they belong.
FORBIDDEN = {
    "predictors": {"apache_beam", "adbc_driver_manager", "sqlglot", "pydantic", "typer", "rich", "sqlalchemy"},
    "transforms": {"pydantic", "typer", "rich", "sqlalchemy", "onnxruntime"},
    "pipelines": {"pydantic", "typer", "rich", "sqlalchemy", "onnxruntime", "adbc_driver_manager"},
    "launcher": {"onnxruntime"},
    "penstock": {"apache_beam", "onnxruntime", "pydantic"},
}

# Modules that come with what is declared, and always will: FastAPI's own routes and threads are theirs.
ALONG = {"starlette": "fastapi", "anyio": "starlette", "pydantic_core": "pydantic"}
# What Arrow has of these imports them when it is called.
IMPORTING = {"to_pandas", "to_pandas_dtype", "from_pandas", "to_polars", "to_tensor", "to_torch"}
CALLS = {"import_module", "__import__", "find_spec"}


def imported(file: Path) -> set[str]:
    """The top names of everything that a file imports, at any depth."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
        elif isinstance(node, ast.Call) and name_of(node.func) in CALLS and node.args:
            # By a name that is written there; any other is a user's.
            given = node.args[0].value if isinstance(node.args[0], ast.Constant) else ""
            names |= {str(given).split(".")[0]} - {""}
    return names


def name_of(function: ast.expr) -> str:
    """What is called, without what it is called on."""
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def declared() -> set[str]:
    """The distributions that the package needs, as pyproject says."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {canonicalize_name(Requirement(each).name) for each in project["dependencies"]}


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_imports_only_those_below_it(layer: str) -> None:
    above = set(LAYERS[: LAYERS.index(layer)])
    files = sorted((ROOT / layer).rglob("*.py"))

    assert files
    for file in files:
        assert not imported(file) & (above | FORBIDDEN[layer] | {"tests", "benchmarks"}), file


def test_only_requests_and_answers_know_pydantic() -> None:
    rooms = (ROOT / "launcher" / "request", ROOT / "launcher" / "api")
    using = [file for layer in LAYERS for file in (ROOT / layer).rglob("*.py") if "pydantic" in imported(file)]

    assert using
    assert [file for file in using if not any(file.is_relative_to(room) for room in rooms)] == []


def test_the_product_imports_nothing_that_it_does_not_declare() -> None:
    """Nor in a function: a wheel in an empty environment has what pyproject declares, and no more."""
    provided = importlib.metadata.packages_distributions()
    needed = declared()
    found: dict[str, list[str]] = {}
    for file in (file for layer in LAYERS for file in sorted((ROOT / layer).rglob("*.py"))):
        for name in imported(file) - sys.stdlib_module_names - set(LAYERS) - ALONG.keys():
            if not needed & {canonicalize_name(each) for each in provided.get(name, [])}:
                found.setdefault(name, []).append(str(file.relative_to(ROOT)))

    assert found == {}
    for name, along in ALONG.items():
        required = {canonicalize_name(Requirement(each).name) for each in importlib.metadata.requires(along) or ()}
        assert canonicalize_name(name) in required
        assert canonicalize_name(along) in needed | {canonicalize_name(each) for each in ALONG}


def test_the_product_calls_nothing_of_arrow_that_imports_more() -> None:
    calling = [
        f"{file.relative_to(ROOT)}:{node.lineno} {name_of(node.func)}"
        for layer in LAYERS
        for file in sorted((ROOT / layer).rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and name_of(node.func) in IMPORTING
    ]

    assert calling == []
