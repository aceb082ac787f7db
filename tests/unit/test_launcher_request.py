"""Requests: what is taken, and the line that each mistake gets."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from launcher.errors import RequestError
from launcher.request import parse_spec, read_spec, spec_of
from pipelines.spec import Config, JobSpec, ParquetInput, ParquetOutput, Rejects, SqlInput, TableOutput
from predictors.base import ModelSpec

SQL: dict[str, Any] = {
    "model": {"uri": "churn.onnx", "flavor": "onnx", "features": ["tenure", "total_charges"]},
    "input": {"source": "sql", "connection": "postgresql://user@host/db", "query": "SELECT 1"},
    "output": {"destination": "table", "table_name": "predictions.churn_scores"},
}
FILES: dict[str, Any] = {
    "model": {"uri": "models.churn:Churn"},
    "input": {"source": "parquet", "path": "data/*.parquet"},
    "output": {"destination": "parquet", "path": "out/scores"},
}


def changed(request: dict[str, Any], field: str, value: Any) -> dict[str, Any]:
    """`request` with one field set; a value of `...` takes the field out."""
    copy: dict[str, Any] = json.loads(json.dumps(request))
    *parts, name = field.split(".")
    at = copy
    for part in parts:
        at = at.setdefault(part, {})
    if value is ...:
        del at[name]
    else:
        at[name] = value
    return copy


EXPORT = (
    "export the model to ONNX (skl2onnx, onnxmltools, torch.onnx, tf2onnx), or write a class that loads it, "
    "and name it as module:Class"
)


def problems(request: Any) -> list[str]:
    with pytest.raises(RequestError) as caught:
        spec_of(request)
    lines = [str(problem) for problem in caught.value.problems]
    assert str(caught.value).splitlines() == lines
    return lines


def refused(text: str, name: str = "spec.yaml") -> str:
    with pytest.raises(RequestError) as caught:
        parse_spec(text, name)
    return str(caught.value)


# --- what is taken -----------------------------------------------------------------------------------------------


def test_the_example_is_read_as_it_is_meant() -> None:
    text = """
    model: {uri: churn.onnx, flavor: onnx, features: [tenure, monthly_charges, total_charges]}
    input:
      source: sql
      connection: postgresql://user@host/db
      query: SELECT customer_id, tenure, monthly_charges, total_charges FROM customers
    output:
      destination: table
      table_name: predictions.churn_scores
      mode: overwrite
      columns: [customer_id]
    rejects: {path: out/rejects, max_reject_ratio: 0.0}
    config: {batch_size: 1000, parallelism: 4, max_memory_gb: 16, timeout_minutes: 60, retry_count: 3, runner: direct}
    """

    assert parse_spec(text) == JobSpec(
        model=ModelSpec("churn.onnx", "onnx", ("tenure", "monthly_charges", "total_charges")),
        input=SqlInput(
            "postgresql://user@host/db",
            "SELECT customer_id, tenure, monthly_charges, total_charges FROM customers",
        ),
        output=TableOutput("postgresql://user@host/db", "predictions.churn_scores", "overwrite", ("customer_id",)),
        rejects=Rejects("out/rejects", 0.0),
        config=Config(),
    )


@pytest.mark.parametrize("request_", [SQL, FILES], ids=["sql", "files"])
def test_yaml_and_json_say_the_same(request_: dict[str, Any]) -> None:
    spec = spec_of(request_)

    assert parse_spec(json.dumps(request_)) == spec
    assert parse_spec(json.dumps(request_, indent="\t")) == spec
    assert parse_spec(json.dumps(request_), "spec.json") == spec
    assert parse_spec(yaml.safe_dump(request_)) == spec
    assert parse_spec(yaml.safe_dump(request_, default_flow_style=True)) == spec
    assert JobSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_what_is_left_out_has_its_default() -> None:
    assert spec_of(FILES) == JobSpec(
        ModelSpec("models.churn:Churn", "python"), ParquetInput(("data/*.parquet",)), ParquetOutput("out/scores")
    )


@pytest.mark.parametrize(
    ("uri", "flavor"),
    [("churn.onnx", "onnx"), ("a/B.ONNX", "onnx"), ("models:Churn", "python"), ("a.b.c:D_1", "python")],
)
def test_the_flavor_may_be_left_out_when_the_uri_tells(uri: str, flavor: str) -> None:
    assert spec_of(changed(FILES, "model.uri", uri)).model.flavor == flavor


def test_a_path_may_be_a_list() -> None:
    assert spec_of(changed(FILES, "input.path", ["a", "b/*"])).input == ParquetInput(("a", "b/*"))


def test_a_connection_of_its_own_goes_before_the_inputs() -> None:
    output = spec_of(changed(SQL, "output.connection", "sqlite:///scores.db")).output

    assert isinstance(output, TableOutput)
    assert output.connection == "sqlite:///scores.db"


@pytest.mark.parametrize("uri", ["${DATABASE}", "postgresql://u:${PASSWORD}@h/db", "${SCHEME}://h/db"])
def test_variables_stay_as_they_are_written(uri: str) -> None:
    spec = spec_of(changed(SQL, "input.connection", uri))

    assert isinstance(spec.input, SqlInput)
    assert spec.input.connection == uri


def test_yaml_words_that_look_like_something_else_stay_text() -> None:
    text = """
    model: {uri: m.onnx, features: [no, on, y, 2024-01-01, 1:30, 010, 0x1f, ~x]}
    input: {source: parquet, path: null.parquet}
    output: {destination: parquet, path: out}
    config: {max_memory_gb: 1e1, timeout_minutes: 5}
    """
    spec = parse_spec(text)

    assert spec.model.features == ("no", "on", "y", "2024-01-01", "1:30", "010", "0x1f", "~x")
    assert (spec.config.max_memory_gb, spec.config.timeout_minutes) == (10, 5)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("config.batch_size", 1),
        ("config.batch_size", 1_000_000),
        ("config.parallelism", 256),
        ("config.max_memory_gb", 0.001),
        ("config.timeout_minutes", 0.5),
        ("config.retry_count", 0),
        ("config.retry_count", 100),
        ("rejects.max_reject_ratio", 0),
        ("rejects.max_reject_ratio", 1),
        ("output.columns", []),
        ("model.nulls", "pass"),
        ("output.mode", "overwrite"),
    ],
)
def test_bounds_are_included(field: str, value: Any) -> None:
    part, name = field.split(".")
    taken = getattr(getattr(spec_of(changed(FILES, field, value)), part), name)

    assert (list(taken) if isinstance(taken, tuple) else taken) == value


# --- what is refused ---------------------------------------------------------------------------------------------

WHOLE = "use a whole number from"


@pytest.mark.parametrize(
    ("field", "value", "line"),
    [
        ("config.batch_size", 0, f"is 0; {WHOLE} 1 to 1000000"),
        ("config.batch_size", 1_000_001, f"is 1000001; {WHOLE} 1 to 1000000"),
        ("config.batch_size", "1000", f"is the text '1000'; {WHOLE} 1 to 1000000"),
        ("config.batch_size", 1.5, f"is the number 1.5; {WHOLE} 1 to 1000000"),
        ("config.batch_size", True, f"is the truth value true; {WHOLE} 1 to 1000000"),
        ("config.batch_size", None, f"is empty; {WHOLE} 1 to 1000000"),
        ("config.batch_size", [1], f"is a list; {WHOLE} 1 to 1000000"),
        ("config.parallelism", 257, f"is 257; {WHOLE} 1 to 256"),
        ("config.max_memory_gb", 0, "is 0; use a number above 0"),
        ("config.max_memory_gb", float("inf"), "is Infinity; use a number above 0"),
        ("config.max_memory_gb", float("nan"), "is NaN; use a number above 0"),
        ("config.timeout_minutes", -1.5, "is -1.5; use a number above 0"),
        ("config.timeout_minutes", "1h", "is the text '1h'; use a number above 0"),
        ("config.retry_count", 101, f"is 101; {WHOLE} 0 to 100"),
        ("config.runner", "flink", "is 'flink', which is not known here; use direct"),
        ("rejects.max_reject_ratio", 1.01, "is 1.01; use a number from 0 to 1"),
        ("rejects.path", "", "is empty; write a folder"),
        ("model.uri", "", "is empty; write a file such as churn.onnx, or module:Class"),
        ("model.uri", 3, "is the number 3; write a file such as churn.onnx, or module:Class, in quotes"),
        ("model.flavor", "pickle", "is 'pickle', which is not known here; use onnx or python"),
        ("model.features", [], "is empty; list the columns that the model reads"),
        ("model.features", "tenure", "is the text 'tenure'; list the columns that the model reads"),
        ("model.features", {}, "is empty; list the columns that the model reads"),
        ("model.outputs", [], "is empty; list the model's outputs to keep, or name them: {output: column}"),
        ("model.outputs", "y", "is the text 'y'; list the model's outputs to keep, or name them: {output: column}"),
        ("model.nulls", "drop", "is 'drop', which is not known here; use reject, pass or fail"),
        ("input.source", "csv", "is 'csv', which is not known here; use parquet or sql"),
        ("input.query", "", "is empty; write one SELECT"),
        ("input.connection", {"password": "hunter2"}, "is a mapping; write postgresql://user@host/db or sqlite:///file.db"),
        ("output.destination", "kafka", "is 'kafka', which is not known here; use parquet or table"),
        ("output.mode", "upsert", "is 'upsert', which is not known here; use error_if_exists, overwrite or append"),
        ("output.table_name", "", "is empty; write table or schema.table"),
        ("output.columns", "id", "is the text 'id'; list the input columns to keep; leave it out to keep all"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named_with_its_remedy(field: str, value: Any, line: str) -> None:
    assert problems(changed(SQL, field, value)) == [f"{field} {line}"]


@pytest.mark.parametrize(
    ("field", "line"),
    [
        ("model", "is missing; write the model's uri, and its flavor and features if need be"),
        ("input", "is missing; write source, and where the rows are"),
        ("output", "is missing; write destination, and where the rows go"),
        ("model.uri", "is missing; write a file such as churn.onnx, or module:Class"),
        ("input.source", "is missing; use parquet or sql"),
        ("input.connection", "is missing; write postgresql://user@host/db or sqlite:///file.db"),
        ("input.query", "is missing; write one SELECT"),
        ("output.destination", "is missing; use parquet or table"),
        ("output.table_name", "is missing; write table or schema.table"),
    ],
)
def test_what_is_missing_is_named_with_its_remedy(field: str, line: str) -> None:
    assert problems(changed(SQL, field, ...)) == [f"{field} {line}"]


@pytest.mark.parametrize(
    ("field", "value", "line"),
    [
        ("path", ..., "input.path is missing; write a file, a glob, a folder, or a list of them"),
        ("path", [], "input.path is an empty list; write a file, a glob, a folder, or a list of them"),
        ("path", 3, "input.path is the number 3; write a file, a glob, a folder, or a list of them"),
        ("path", ["a", ""], "input.path[1] is empty; write a file, a glob, a folder, or a list of them"),
    ],
)
def test_a_path_is_a_text_or_a_list_of_them(field: str, value: Any, line: str) -> None:
    assert problems(changed(FILES, f"input.{field}", value)) == [line]


LOCAL = "write a local path or file:///…, or ./… for a file of that name"
ONNX = changed(FILES, "model", {"uri": "churn.onnx"})


@pytest.mark.parametrize("field", ["model.uri", "input.path", "output.path", "rejects.path"])
@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("s3://me:secret@b/out", f"s3://me:*****@b/out, and s3:// is not supported yet; {LOCAL}"),
        ("GS://b/out", f"GS://b/out, and gs:// is not supported yet; {LOCAL}"),
        ("abfss:/b/out", f"'abfss:/b/out', and abfss:// is not supported yet; {LOCAL}"),
        ("https://host/churn.onnx", f"https://host/churn.onnx, and https:// is not supported yet; {LOCAL}"),
        ("file://host/out",
         "file://host/out, which names another machine; write file:///folder/file, or the path alone"),
        ("C:/out", "'C:/out', a path of Windows; write one of this machine, or ./… for a file of that name"),
        ("~nobody-here/m.onnx", "'~nobody-here/m.onnx', and ~nobody-here is nobody's home folder; write the folder, or "
         "./… for a file of that name"),
    ],
)  # fmt: skip
def test_a_path_that_is_not_of_this_machine_is_refused_by_its_scheme(field: str, path: str, line: str) -> None:
    assert problems(changed(ONNX, field, path)) == [f"{field} is {line}"]


def test_paths_of_a_spec_may_be_file_urls_and_begin_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    paths = ["file:///data/a%20b/*.parquet", "~/in", "~root/in", "./s3:/x", "./~", "a:b", "x/s3://y", "file:/in"]
    request = changed(changed(ONNX, "input.path", paths), "output.path", "file://localhost/out")
    request = changed(changed(request, "rejects.path", "~"), "model.uri", "FILE:///m/churn.onnx")

    spec = spec_of(request)

    home = ["/data/a b/*.parquet", "/home/ada/in", "/root/in"]
    assert spec.input == ParquetInput((*home, "./s3:/x", "./~", "a:b", "x/s3://y", "/in"))
    assert (spec.output, spec.rejects.path, spec.model.uri) == (ParquetOutput("/out"), "/home/ada", "/m/churn.onnx")


def test_columns_of_files_may_be_given_types() -> None:
    schema = {"day": "date32[day]", "zip": "string"}

    spec = spec_of(changed(FILES, "input.schema", schema))

    assert spec.input == ParquetInput(("data/*.parquet",), tuple(schema.items()))
    assert JobSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


@pytest.mark.parametrize(
    ("schema", "line"),
    [
        (["day"], "input.schema is a list; write the types of columns as {column: type}"),
        ({"day": "date"}, "input.schema.day is 'date', which is no type; write a type as Arrow prints it, such as "
         "date32[day]"),
        ({"day": 3}, "input.schema.day is the number 3; write a type as Arrow prints it, such as date32[day]"),
        ({"": "string"}, "input.schema.'' is empty; write the name of a column, in quotes"),
    ],
)  # fmt: skip
def test_a_type_that_is_none_is_refused(schema: Any, line: str) -> None:
    assert problems(changed(FILES, "input.schema", schema)) == [line]


@pytest.mark.parametrize(
    ("field", "line"),
    [
        ("config.batchsize", "config.batchsize is not known; did you mean config.batch_size?"),
        ("config.BATCH_SIZE", "config.BATCH_SIZE is not known; did you mean config.batch_size?"),
        ("confg", "confg is not known; did you mean config?"),
        ("batch_size", "batch_size is not known; did you mean config.batch_size?"),
        ("model.batch_size", "model.batch_size is not known; did you mean config.batch_size?"),
        ("model.model_id", "model.model_id is not known; use uri, flavor, features, nulls, outputs and args"),
        ("schedule", "schedule is not known; use model, input, output, rejects and config"),
        ("input.path", "input.path belongs to source parquet, and this is sql; take it out or change input.source"),
        ("input.password", "input.password is not known; use source, connection and query"),
        ("output.tablename", "output.tablename is not known; did you mean output.table_name?"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(field: str, line: str) -> None:
    assert problems(changed(SQL, field, 5)) == [line]


def test_all_mistakes_are_told_at_once_in_the_order_of_the_parts() -> None:
    request = changed(changed(changed(SQL, "config.batch_size", 0), "model.uri", ""), "output.mode", "upsert")

    assert [line.split()[0] for line in problems({**request, "zzz": 1})] == [
        "model.uri",
        "output.mode",
        "config.batch_size",
        "zzz",
    ]


@pytest.mark.parametrize(
    ("field", "value", "read"),
    [
        ("features", ["a", "b"], ("a", "b")),
        ("features", {"num": ["a", "b"], "cat": "c"}, {"num": ("a", "b"), "cat": ("c",)}),
        ("outputs", ["label"], ("label",)),
        ("outputs", {"variable": "churn_score"}, {"variable": "churn_score"}),
        (
            "outputs",
            {"probabilities": ["p_no", "p_yes"], "label": "l"},
            {"probabilities": ("p_no", "p_yes"), "label": "l"},
        ),
        ("outputs", None, None),
    ],
    ids=str,
)
def test_columns_of_inputs_and_of_outputs_are_read_and_kept(field: str, value: Any, read: Any) -> None:
    spec = spec_of(changed(SQL, f"model.{field}", value))

    assert getattr(spec.model, field) == read
    assert JobSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    assert isinstance(hash(spec.model), int)


@pytest.mark.parametrize(
    ("field", "value", "line"),
    [
        ("features", {"num": []}, "features.num is empty; list the columns that the model reads"),
        ("features", {"num": ["a", 3]}, "features.num[1] is the number 3; write the name of a column, in quotes"),
        ("features", {"num": ["a", "a"]}, "features.num names 'a' more than once; name each column once"),
        ("features", {"num": 3}, "features.num is the number 3; list the columns that the model reads"),
        (
            "outputs",
            {"y": 3},
            "outputs.y is the number 3; write the name of its column, or a list of names for its values, in quotes",
        ),
        (
            "outputs",
            {"y": ["a", ""]},
            "outputs.y[1] is empty; write the name of its column, or a list of names for its values",
        ),
        ("outputs", ["y", "y"], "outputs names 'y' more than once; name each output once"),
        ("outputs", ["y", None], "outputs[1] is empty; write the name of an output"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_wrong_with_them_is_named_by_its_place(field: str, value: Any, line: str) -> None:
    assert problems(changed(SQL, f"model.{field}", value)) == [f"model.{line}"]


@pytest.mark.parametrize("field", ["model.features", "output.columns"])
def test_a_column_is_named_once(field: str) -> None:
    assert problems(changed(SQL, field, ["a", "b", "a", "c", "b"])) == [
        f"{field} names 'a', 'b' more than once; name each column once"
    ]


@pytest.mark.parametrize("character", ["\0", "\ud800"])
def test_a_character_that_cannot_be_stored_is_refused_wherever_it_is(character: str) -> None:
    line = f"holds the character U+{ord(character):04X}, which cannot be stored; take it out"
    request = {**changed(SQL, "input.query", f"SELECT '{character}'"), f"a{character}": 1}

    assert problems(request) == [f"input.query {line}", f"{f'a{character}'!r} {line}"]


def test_a_yaml_value_that_holds_itself_is_refused() -> None:
    lines = refused("&a {model: *a, input: [*a, *a, *a]}").splitlines()

    assert "input is a list; it is a mapping with source, path, schema, connection and query" in lines


def test_a_column_that_is_no_text_is_named_by_its_place() -> None:
    assert problems(changed(SQL, "output.columns", ["a", 3])) == [
        "output.columns[1] is the number 3; write the name of a column, in quotes"
    ]


def test_a_flavor_that_the_uri_does_not_tell_has_to_be_named() -> None:
    assert problems(changed(FILES, "model.uri", "churn.bin")) == [
        "model.flavor is missing and model.uri 'churn.bin' does not tell it; use onnx or python"
    ]


@pytest.mark.parametrize(
    ("uri", "line"),
    [
        ("models/churn.pkl", f"which is no ONNX file by its name; {EXPORT}"),
        ("churn.joblib", f"which is no ONNX file by its name; {EXPORT}"),
        ("churn.py:Churn", "and a module is wanted before the class; write churn:Churn"),
        ("./jobs/churn.py:Churn", "and a module is wanted before the class; write jobs.churn:Churn"),
        (
            "/srv/churn.py:Churn",
            "and a module is wanted before the class; write churn:Churn, and start from the folder of the file",
        ),
        ("churn.py", "and a module is wanted before the class; write churn:Class"),
        ("jobs.churn.Churn", "and a colon is wanted before the class; write jobs.churn:Churn"),
        (
            "s3://b/m.onnx",
            "and s3:// is not supported yet; write a local path or file:///…, or ./… for a file of that name",
        ),
    ],
)
def test_a_model_that_is_none_by_its_name_has_its_own_remedy(uri: str, line: str) -> None:
    assert problems(changed(FILES, "model.uri", uri)) == [f"model.uri is {uri if '://' in uri else repr(uri)}, {line}"]


@pytest.mark.parametrize(
    ("password", "written"),
    [("se@cret", "@ as %40"), ("se/cret", "/ as %2F"), ("s@e/cr%et", "@ as %40 and / as %2F and % as %25")],
)
def test_a_password_that_a_uri_does_not_bear_is_not_told(password: str, written: str) -> None:
    (line,) = problems(changed(SQL, "input.connection", f"postgresql://me:{password}@db/crm"))

    assert line == (
        "input.connection is postgresql://me:*****@db/crm, which has a password with characters of a URI's own; "
        f"write {written}, or take the password from ${{NAME}}"
    )


@pytest.mark.parametrize(
    "uri",
    [
        "postgresql://me:${PW}@db/crm",
        "postgresql://me:se%40c#r?et@db/crm",
        "postgresql://db:5432/crm?application_name=me@home",
        "postgresql://db/a@b",
        "postgresql://[::1]:5432/crm",
    ],
)
def test_a_uri_that_a_database_takes_is_taken(uri: str) -> None:
    spec = spec_of(changed(SQL, "input.connection", uri))

    assert isinstance(spec.input, SqlInput)
    assert spec.input.connection == uri


def test_a_python_model_is_a_class_in_a_module() -> None:
    assert problems(changed(changed(FILES, "model.uri", "churn.py"), "model.flavor", "python")) == [
        "model.uri is 'churn.py', and a module is wanted before the class; write churn:Class"
    ]


def test_a_table_needs_a_connection_when_the_input_has_none() -> None:
    assert problems({**FILES, "output": SQL["output"]}) == [
        "output.connection is missing, and the input is no database to take it from; "
        "write postgresql://user@host/db or sqlite:///file.db"
    ]


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("mysql://me:hunter2@host/db", "mysql://me:*****@host/db"),
        ("host=db password=hunter2", "*****"),
        ("hunter2", "*****"),
        ("https://host/x?token=hunter2", "https://host/x?*****"),
    ],
)
def test_a_connection_is_refused_without_its_secret(uri: str, shown: str) -> None:
    assert problems(changed(SQL, "input.connection", uri)) == [
        f"input.connection is {shown}; write postgresql://user@host/db or sqlite:///file.db"
    ]


def test_a_secret_in_the_wrong_place_is_masked_too() -> None:
    (line,) = problems(changed(SQL, "output.mode", "postgresql://me:hunter2@host/db"))

    assert line.startswith("output.mode is postgresql://me:*****@host/db, which is not known here")


def test_a_long_value_is_cut() -> None:
    (line,) = problems(changed(SQL, "output.mode", "x\n" * 1000))

    assert len(line) < 160
    assert "…" in line
    assert "\n" not in line


@pytest.mark.parametrize("part", ["model", "input", "output", "rejects", "config"])
@pytest.mark.parametrize(
    ("value", "kind"), [(None, "empty"), ([], "a list"), ("x", "the text 'x'"), (3, "the number 3")]
)
def test_a_part_is_a_mapping(part: str, value: Any, kind: str) -> None:
    (line,) = problems({**SQL, part: value})

    assert line.startswith(f"{part} is {kind}; it is a mapping with ")


# --- reading the text --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("", " is empty; it needs model, input and output"),
        (" \n\t\n", " is empty; it needs model, input and output"),
        ("[1]", " is a list, not a mapping; it needs model, input and output"),
        ("hello", " is the text 'hello', not a mapping; it needs model, input and output"),
        ("# nothing\n", " is empty, not a mapping; it needs model, input and output"),
        ("model: {uri: a}\nmodel: {uri: b}", " line 2 is not YAML: the key 'model' comes twice; keep one"),
        (
            "model:\n\turi: a",
            r" line 2 is not YAML: found character '\t' that cannot start any token; indent with spaces",
        ),
        ("query: a: b", " line 1 is not YAML: mapping values are not allowed here; quote text that holds ': '"),
        ("model: {uri: a", " line 1 is not YAML: expected ',' or '}', but got '<stream end>'"),
        ("a: *b", " line 1 is not YAML: found undefined alias 'b'"),
        ("? [a]\n: b", " line 1 is not YAML: a key is not a plain word"),
        ("m: !!set {}", " line 1 is not YAML: a value is tagged '!!set'; write it without"),
        (
            "m: !!python/object:os.system {}",
            " line 1 is not YAML: a value is tagged '!!python/object:os.system'; write it without",
        ),
        ('{"model": 1, "model": 2}', " holds the key 'model' twice; keep one"),
        ('{"model":\t1,}', " line 1 is not JSON: Expecting property name enclosed in double quotes at column 13"),
        ("[" * 5000, " is nested too deeply; a job spec has two levels"),
        ('{"config": {"batch_size": ' + "9" * 5000 + "}}", " holds a number that is too long; write a shorter one"),
    ],
    ids=range(17),
)
def test_a_text_that_cannot_be_read_is_one_line(text: str, rest: str) -> None:
    assert refused(text) == f"spec.yaml{rest}"


def test_a_json_file_is_read_as_json() -> None:
    assert refused('{\n"model": 1\n"input": 2}', "spec.json") == (
        "spec.json line 3 is not JSON: Expecting ',' delimiter at column 1"
    )


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    binary, large, text = tmp_path / "binary", tmp_path / "large", tmp_path / "ü.yaml"
    binary.write_bytes(b"model:\n\xff\xfe")
    large.write_bytes(b"#" * 1_000_001)
    text.write_text("\ufeff" + json.dumps(FILES))

    def line(path: Path) -> str:
        with pytest.raises(RequestError) as caught:
            read_spec(path)
        return str(caught.value)

    assert line(tmp_path / "none") == f"{tmp_path}/none: there is no such file; name a job spec in YAML or JSON"
    assert line(tmp_path) == f"{tmp_path} is a folder; name the job spec inside it"
    assert line(binary) == f"{binary} is not UTF-8 text (line 2); save it as UTF-8"
    assert line(large) == f"{large} is larger than 1,000,000 bytes; name a job spec, not a data file"
    assert line(binary / "x") == f"{binary}/x cannot be read: Not a directory"
    assert read_spec(text) == spec_of(FILES)


def test_a_dash_reads_the_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(json.dumps(FILES).encode())))

    assert read_spec("-") == spec_of(FILES)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = [
    *("model", "model.uri", "model.flavor", "model.features", "model.nulls", "input", "input.source", "input.query"),
    *("model.outputs",),
    *("input.connection", "input.path", "output", "output.destination", "output.mode", "output.columns", "output.path"),
    *("output.table_name", "output.connection", "rejects", "rejects.path", "rejects.max_reject_ratio", "config"),
    *("config.batch_size", "config.max_memory_gb", "config.runner", "extra", "input.extra", "config.extra"),
]


@given(st.sampled_from([SQL, FILES]), st.sampled_from(FIELDS), JSON_VALUES)
def test_whatever_a_field_holds_is_taken_or_told_in_lines(request_: dict[str, Any], field: str, value: Any) -> None:
    try:
        spec_of(changed(request_, field, value))
        lines = None
    except RequestError as error:
        lines = str(error).splitlines()
        told = error.problems

    assert lines is None or (lines and len(lines) == len(told) and all(problem.message for problem in told))


@given(st.text() | st.text(alphabet="{}[]:,-#&*!|>'\"%@`? \n\tab1.~<"))
def test_whatever_text_comes_is_taken_or_told(text: str) -> None:
    with pytest.raises(RequestError):
        parse_spec(text)
