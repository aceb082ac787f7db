"""Imports point one way: penstock, launcher, pipelines, transforms, predictors."""

import ast
from pathlib import Path

import pytest

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


def imported(file: Path) -> set[str]:
    """The top names of everything that a file imports, at any depth."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


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
