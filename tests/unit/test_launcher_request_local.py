"""Local specs: changed by `--set`, and with their templates filled in."""

from datetime import UTC, datetime
from typing import Any

import pytest

from launcher.errors import RequestError
from launcher.request.local import local_spec, local_zone, with_settings
from pipelines.spec import ParquetInput, ParquetOutput, SqlInput

SPEC: dict[str, Any] = {
    "model": {"uri": "churn.onnx"},
    "input": {"source": "parquet", "path": "in.parquet"},
    "output": {"destination": "parquet", "path": "out"},
}
AT = datetime(2025, 3, 1, 2, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("output.path=x", "x"),
        ("output.path=2025", 2025),
        ("output.path='2025'", "2025"),
        ("output.path=a=b", "a=b"),
        ("output.path=a: b # c", "a: b # c"),
        ("output.path=*.parquet", "*.parquet"),
        ("output.path=true", True),
        ("output.path=0.5", 0.5),
        ("output.path=01", "01"),
        ("output.path=no", "no"),
        ("output.path=[a, b]", ["a", "b"]),
        ("output.path={a: [b, 1]}", {"a": ["b", 1]}),
        ("output.path={{ job_id }}", "{{ job_id }}"),
    ],
)
def test_a_setting_takes_a_value_of_yaml(setting: str, value: Any) -> None:
    assert with_settings(SPEC, [setting])["output"]["path"] == value
    assert SPEC["output"]["path"] == "out"


def test_settings_make_what_is_not_there_and_take_out_what_is_null() -> None:
    changed = with_settings(SPEC, ["config.batch_size=10", "output.path=", "rejects.path=null", "config.batch_size=20"])

    assert changed["config"] == {"batch_size": 20}
    assert "path" not in changed["output"]
    # A key that is not there is no reason to pass over a slip in it.
    assert changed["rejects"] == {"path": None}


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (["outputs.path=x"], "outputs is not known; did you mean output?"),
        (["output.pth=x"], "output.pth is not known; did you mean output.path?"),
        (["config.batch_size=ten"], "config.batch_size is the text 'ten'; use a whole number from 1 to 1000000"),
        (["output.path"], "--set 'output.path' has no value; write --set output.path=VALUE"),
        (["=x"], "--set '' is no key; write one such as output.path or config.batch_size"),
        (["a..b=x"], "--set 'a..b' is no key; write one such as output.path or config.batch_size"),
        (["model.uri.x=1"], "--set model.uri.x: model.uri is no mapping, and has no x; set model.uri as a whole"),
        (
            ["output.columns=[id]", "output.columns.a=1"],
            "--set output.columns.a: output.columns is a list, and has no a; set output.columns as a whole",
        ),
        (
            ["output.path={{ scheduld_at }}"],
            "output.path has {{ scheduld_at }}, and 'scheduld_at' is not known; use scheduled_at, scheduled_date or "
            "job_id",
        ),
        (
            ["output.path=out/{{ scheduled_date"],
            "output.path has a {{ scheduled_date that nothing closes; write {{ scheduled_at }}",
        ),
    ],
)
def test_a_wrong_setting_is_a_line_with_its_remedy(settings: list[str], line: str) -> None:
    with pytest.raises(RequestError) as caught:
        local_spec(SPEC, settings, "batch-1", AT)

    assert str(caught.value) == line


def test_templates_are_those_of_schedules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    settings = ["output.path=out/{{ scheduled_at - 1d | %Y/%m/%d %H }}/{{ job_id }}", "input.path=[a, '{{ job_id }}']"]
    spec = local_spec(SPEC, settings, "batch-1", AT)
    naive = local_spec(SPEC, settings, "batch-1", datetime(2025, 3, 1))

    assert str(local_zone()) == "Europe/Berlin"
    assert spec.output == ParquetOutput("out/2025/02/28 03/batch-1")
    assert spec.input == ParquetInput(("a", "batch-1"))
    assert naive.output == ParquetOutput("out/2025/02/28 00/batch-1")


def test_other_braces_are_text() -> None:
    query = "SELECT '{{1,2},{3,4}}'::int[], '{{a,b},{c,d}}'::text[]"
    values = {**SPEC, "input": {"source": "sql", "connection": "sqlite:///a.db", "query": query}}
    spec = local_spec(values, [], "batch-1", AT)

    assert isinstance(spec.input, SqlInput)
    assert spec.input.query == query
