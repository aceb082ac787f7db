"""The parts of a spec answer for themselves, whatever their kind."""

import ast
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.kinds import DESTINATIONS, SOURCES, input_kind, output_kind
from pipelines.spec import JobSpec, ParquetInput, ParquetOutput, Rejects, SqlInput, TableOutput
from predictors.base import ModelSpec
from predictors.specvalue import NamedConnection, NamedPath, SpecValue

LAUNCHER = Path(__file__).parents[2] / "launcher"

ONNX, PYTHON = ModelSpec("m.onnx", "onnx"), ModelSpec("mine:Model", "python")
PARTS: list[tuple[SpecValue, list[tuple[str, bool]], list[str]]] = [
    (ParquetInput(("a", "b/*"), (("x", "int64"),)), [("a", True), ("b/*", True)], []),
    (SqlInput("db", "SELECT 1"), [], ["db"]),
    (ParquetOutput("out", columns=("id",)), [("out", False)], []),
    (TableOutput("db", "t", "append", None, "batch-1"), [], ["db"]),
    (Rejects("bad", 0.5), [("bad", False)], []),
    (Rejects(), [], []),
    (ONNX, [("m.onnx", False)], []),
    (PYTHON, [], []),
]
# Of a job, one of each.
KINDS = [*map(input_kind, SOURCES), *map(output_kind, DESTINATIONS)]


@pytest.mark.parametrize(("part", "paths", "connections"), PARTS, ids=lambda each: type(each).__name__)
def test_a_part_names_its_paths_and_connections_and_takes_others(
    part: SpecValue, paths: list[tuple[str, bool]], connections: list[str]
) -> None:
    moved = part.with_paths(lambda each: f"/real/{each.path}").with_connections(lambda name: f"{name}:uri")

    assert [(each.path, each.is_pattern) for each in part.paths()] == paths
    assert [each.name for each in part.connections()] == connections
    assert [each.path for each in moved.paths()] == [f"/real/{path}" for path, _ in paths]
    assert [each.name for each in moved.connections()] == [f"{name}:uri" for name in connections]
    assert type(part).from_json(json.loads(json.dumps(part.to_json()))) == part


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_what_a_request_leaves_out_is_for_the_service_to_choose(kind: Any) -> None:
    needed = {"path": "in"} if kind is ParquetInput else {"query": "SELECT 1"} if kind is SqlInput else {}
    needed |= {"table_name": "t"} if kind is TableOutput else {}
    part = kind.from_request({**needed, "connection": None} if kind in (SqlInput, TableOutput) else needed)

    assert part.lacks_place is (kind is ParquetOutput)
    assert [each.name for each in part.connections()] == ([""] if kind in (SqlInput, TableOutput) else [])
    if part.lacks_place:
        assert [each.path for each in part.placed("/kept").paths()] == ["/kept"]
        assert not list(part.paths())


def test_a_job_names_what_its_parts_do_and_where() -> None:
    spec = JobSpec(ONNX, SqlInput("a", "SELECT 1"), TableOutput("b", "t"), Rejects("bad"))

    assert list(spec.paths()) == [
        NamedPath("model.uri", "m.onnx", "read"),
        NamedPath("rejects.path", "bad", "written"),
    ]
    assert list(spec.connections()) == [
        NamedConnection("input.connection", "a"),
        NamedConnection("output.connection", "b"),
    ]
    assert replace(spec, output=TableOutput("a", "t")).connection_names() == ["a"]
    assert spec.with_uris({"a": "sqlite:///a"}).connection_names() == ["sqlite:///a", "b"]
    assert spec.with_paths(lambda each: f"/{each.field}").model.uri == "/model.uri"
    assert "secret" not in repr(SqlInput("postgresql://u:secret@h/db", "SELECT 1"))


def test_the_launcher_asks_no_value_what_kind_it_is() -> None:
    kinds = {kind.__name__ for kind in KINDS} | {"PythonPredictor", "OnnxPredictor", "ParquetSource", "SnapshotSource"}
    asked = [
        f"{file.name}:{node.lineno}"
        for file in sorted(LAUNCHER.rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isinstance"
        if {each.id for each in ast.walk(node.args[1]) if isinstance(each, ast.Name)} & kinds
    ]

    assert asked == []
