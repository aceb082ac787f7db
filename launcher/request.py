"""A request becomes a job's spec: YAML or JSON, read strictly, every mistake told in one line with its remedy.

The only module that knows pydantic. What passes here is a `JobSpec`: plain values, defaults filled in.
"""

import difflib
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from launcher.errors import Problem, RequestError
from pipelines.spec import (
    Config,
    JobSpec,
    ParquetInput,
    ParquetOutput,
    Rejects,
    SqlInput,
    TableOutput,
)
from predictors.base import ModelSpec, Nulls
from transforms.sinks.mode import Mode

# A spec is a page of text; whoever names a data file instead should be told before it is read to its end.
_MAX_BYTES = 1_000_000
# As much of a value as a line of a message bears.
_SHOWN_CHARS = 60
_PYTHON_URI = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_SCHEMES = ("postgresql", "postgres", "sqlite")


def read_spec(path: str | Path) -> JobSpec:
    """Read a job's spec from a file of YAML or JSON, `-` being the standard input.

    Raises:
        RequestError: the file cannot be read, or `parse_spec` refuses it.
    """
    try:
        if str(path) == "-":
            data = sys.stdin.buffer.read(_MAX_BYTES + 1)
        else:
            with open(path, "rb") as file:
                data = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        raise _refused(f"{path}: there is no such file; name a job spec in YAML or JSON") from None
    except IsADirectoryError:
        raise _refused(f"{path} is a folder; name the job spec inside it") from None
    except OSError as error:
        raise _refused(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > _MAX_BYTES:
        raise _refused(f"{path} is larger than {_MAX_BYTES:,} bytes; name a job spec, not a data file")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _refused(f"{path} is not UTF-8 text (line {line}); save it as UTF-8") from error
    return parse_spec(text, str(path))


def parse_spec(text: str, name: str = "the request") -> JobSpec:
    """Read a job's spec from YAML or JSON.

    YAML is read by the rules of its version 1.2: `no`, `on` and dates are text.

    Args:
        name: how messages call the text.

    Raises:
        RequestError: names every field that is wrong.
    """
    if not text.strip():
        raise _refused(f"{name} is empty; it needs model, input and output")
    try:
        values = _load(text, name)
    except RecursionError:
        raise _refused(f"{name} is nested too deeply; a job spec has two levels") from None
    except ValueError as error:
        # Python reads no number of over 4,300 digits.
        raise _refused(f"{name} holds a number that is too long; write a shorter one") from error
    if not isinstance(values, dict):
        raise _refused(f"{name} is {_described(values)}, not a mapping; it needs model, input and output")
    return spec_of(values)


def spec_of(values: Mapping[Any, Any]) -> JobSpec:
    """Check a request that was read already.

    Raises:
        RequestError: names every field that is wrong.
    """
    problems: list[Problem] = []
    request: _Request | None = None
    try:
        request = _Request.model_validate(dict(values))
    except ValidationError as error:
        problems = [_problem(details, values) for details in error.errors(include_url=False)]
    problems += _problems_between(values, {problem.field for problem in problems})
    if request is None or problems:
        raise RequestError(sorted(dict.fromkeys(problems), key=_in_order))
    return request.spec()


def _refused(line: str) -> RequestError:
    return RequestError([Problem("", line)])


# --- what a request may hold -------------------------------------------------------------------------------------

_Text = Annotated[str, Field(min_length=1)]
_DEFAULTS = Config()


class _Part(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class _Model(_Part):
    uri: _Text
    flavor: Literal["onnx", "python"] | None = None
    features: Annotated[list[_Text], Field(min_length=1)] | None = None
    nulls: Nulls = "reject"


class _SqlInput(_Part):
    source: Literal["sql"]
    connection: _Text
    query: _Text


class _ParquetInput(_Part):
    source: Literal["parquet"]
    # Checked by `_problems_between`: a union's errors name each branch.
    path: Any


class _TableOutput(_Part):
    destination: Literal["table"]
    connection: _Text | None = None
    table_name: _Text
    mode: Mode = "error_if_exists"
    columns: list[_Text] | None = None


class _ParquetOutput(_Part):
    destination: Literal["parquet"]
    path: _Text
    mode: Mode = "error_if_exists"
    columns: list[_Text] | None = None


class _Rejects(_Part):
    path: _Text | None = None
    max_reject_ratio: Annotated[float, Field(ge=0, le=1)] = Rejects().max_reject_ratio


class _Config(_Part):
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)] = _DEFAULTS.batch_size
    parallelism: Annotated[int, Field(ge=1, le=256)] = _DEFAULTS.parallelism
    max_memory_gb: Annotated[float, Field(gt=0)] = _DEFAULTS.max_memory_gb
    timeout_minutes: Annotated[float, Field(gt=0)] = _DEFAULTS.timeout_minutes
    retry_count: Annotated[int, Field(ge=0, le=100)] = _DEFAULTS.retry_count
    runner: Literal["direct"] = _DEFAULTS.runner


class _Request(_Part):
    model: _Model
    input: Annotated[_SqlInput | _ParquetInput, Field(discriminator="source")]
    output: Annotated[_TableOutput | _ParquetOutput, Field(discriminator="destination")]
    rejects: _Rejects = _Rejects()
    config: _Config = _Config()

    def spec(self) -> JobSpec:
        """The job's spec, once `_problems_between` has nothing to say."""
        model, source, output = self.model, self.input, self.output
        flavor = model.flavor or _flavor_of(model.uri)
        assert flavor is not None
        given: SqlInput | ParquetInput
        if isinstance(source, _SqlInput):
            given = SqlInput(source.connection, source.query)
        else:
            given = ParquetInput((source.path,) if isinstance(source.path, str) else tuple(source.path))
        wanted: TableOutput | ParquetOutput
        if isinstance(output, _TableOutput):
            connection = output.connection or (given.connection if isinstance(given, SqlInput) else "")
            wanted = TableOutput(connection, output.table_name, output.mode, _tuple(output.columns))
        else:
            wanted = ParquetOutput(output.path, output.mode, _tuple(output.columns))
        return JobSpec(
            model=ModelSpec(model.uri, flavor, _tuple(model.features), model.nulls),
            input=given,
            output=wanted,
            rejects=Rejects(self.rejects.path, self.rejects.max_reject_ratio),
            config=Config(**{field.name: getattr(self.config, field.name) for field in fields(Config)}),
        )


def _tuple(values: list[str] | None) -> tuple[str, ...] | None:
    return None if values is None else tuple(values)


# Each part of a request by the tag that chooses it; parts without a tag are under "".
_PARTS: dict[str, dict[str, type[_Part]]] = {
    "model": {"": _Model},
    "input": {"parquet": _ParquetInput, "sql": _SqlInput},
    "output": {"parquet": _ParquetOutput, "table": _TableOutput},
    "rejects": {"": _Rejects},
    "config": {"": _Config},
}
_TAGS = {"input": "source", "output": "destination"}
_FIELDS = [
    f"{part}.{name}"
    for part, kinds in _PARTS.items()
    for name in dict.fromkeys(name for kind in kinds.values() for name in kind.model_fields)
]


def _flavor_of(uri: str) -> Literal["onnx", "python"] | None:
    if uri.lower().endswith(".onnx"):
        return "onnx"
    return "python" if _PYTHON_URI.fullmatch(uri) else None


def _problems_between(values: Mapping[Any, Any], known: set[str]) -> list[Problem]:
    """What is wrong though each field by itself is of the right type; silent where it is not."""

    def part(name: str) -> Mapping[Any, Any]:
        value = values.get(name)
        return value if isinstance(value, dict) else {}

    model, source, output = part("model"), part("input"), part("output")
    problems = []
    uri = model.get("uri")
    if isinstance(uri, str) and uri:
        if model.get("flavor") is None and "model.flavor" not in known and _flavor_of(uri) is None:
            problems.append(
                Problem("model.flavor", f"is missing and model.uri {_shown(uri)} does not tell it; use onnx or python")
            )
        if model.get("flavor") == "python" and not _PYTHON_URI.fullmatch(uri):
            problems.append(
                Problem("model.uri", f"is {_shown(uri)}, and flavor python needs module:Class; name a class")
            )
    for field, names in {"model.features": model.get("features"), "output.columns": output.get("columns")}.items():
        texts = [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
        twice = [name for name in dict.fromkeys(texts) if texts.count(name) > 1]
        if twice:
            listed = ", ".join(map(_shown, twice))
            problems.append(Problem(field, f"names {listed} more than once; name each column once"))
    if source.get("source") == "parquet" and "path" in source:
        problems += _path_problems(source["path"])
    for name, holder in {"input": source, "output": output}.items():
        if isinstance(holder.get("connection"), str) and holder["connection"]:
            problems += _connection_problems(f"{name}.connection", holder["connection"])
    if output.get("destination") == "table" and output.get("connection") is None and source.get("source") == "parquet":
        problems.append(
            Problem(
                "output.connection",
                "is missing, and the input is no database to take it from; "
                "write postgresql://user@host/db or sqlite:///file.db",
            )
        )
    return problems


def _path_problems(path: Any) -> list[Problem]:
    remedy = "write a file, a glob, a folder, or a list of them"
    paths = path if isinstance(path, list) else [path]
    if not paths:
        return [Problem("input.path", f"is an empty list; {remedy}")]
    return [
        Problem("input.path" if paths is not path else f"input.path[{index}]", f"is {_described(each)}; {remedy}")
        for index, each in enumerate(paths)
        if not isinstance(each, str) or not each
    ]


def _connection_problems(field: str, uri: str) -> list[Problem]:
    scheme, separator, _ = uri.partition("://")
    # A variable may hold the scheme, too; it is expanded only where the connection is opened.
    if "${" in scheme or (separator and scheme in _SCHEMES):
        return []
    return [Problem(field, f"is {_shown(uri, secret=True)}; write postgresql://user@host/db or sqlite:///file.db")]


# --- how a mistake is told ---------------------------------------------------------------------------------------


def _in_order(problem: Problem) -> int:
    """Problems are told in the order of the parts, not in that in which they were found."""
    part = problem.field.partition(".")[0].partition("[")[0]
    return list(_PARTS).index(part) if part in _PARTS else len(_PARTS)


def _problem(details: ErrorDetails, values: Mapping[Any, Any]) -> Problem:
    kind, value = details["type"], details["input"]
    location = list(details["loc"])
    if kind == "invalid_key":  # a number in place of a word
        location[-1] = str(location[-1])
    part = str(location[0])
    if part in _TAGS and len(location) > 1 and location[1] in _PARTS[part]:
        del location[1]  # pydantic's name for the branch that the tag chose
    if kind in ("extra_forbidden", "invalid_key"):
        field = _dotted([*location[:-1], _key(str(location[-1]))])
        return Problem(field, _unknown(location, values))
    field = _dotted(location)
    if kind == "missing":
        return Problem(field, f"is missing; {_remedy_for(location)}")
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        tag = _TAGS[part]
        remedy = f"use {_either(_PARTS[part])}"
        if kind == "union_tag_not_found":
            return Problem(f"{field}.{tag}", f"is missing; {remedy}")
        return Problem(f"{field}.{tag}", f"is {_shown(value.get(tag))}, which is not known here; {remedy}")
    if kind == "literal_error":
        described = _shown(value) if isinstance(value, str) else _described(value)
        return Problem(field, f"is {described}, which is not known here; use {_either(_choices(location))}")
    if kind in ("greater_than_equal", "less_than_equal", "greater_than", "finite_number"):
        return Problem(field, f"is {_shown(value)}; {_remedy_for(location)}")
    described = _described(value, secret=location[-1] == "connection")
    if kind in ("string_type", "int_type", "float_type", "int_from_float", "list_type"):
        return Problem(field, f"is {described}; {_remedy_for(location, value)}")
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        names = [each.partition(".")[2] for each in _FIELDS if each.startswith(f"{part}.")]
        return Problem(field, f"is {described}; it is a mapping with {_either(names, 'and')}")
    if kind in ("string_too_short", "too_short"):
        return Problem(field, f"is empty; {_remedy_for(location)}")
    return Problem(field, f"is {described}: {details['msg']}; {_remedy_for(location)}")


_REMEDIES = {
    "model": "write the model's uri, and its flavor and features if need be",
    "input": "write source, and where the rows are",
    "output": "write destination, and where the rows go",
    "model.uri": "write a file such as churn.onnx, or module:Class",
    "model.features": "list the columns that the model reads",
    "input.connection": "write postgresql://user@host/db or sqlite:///file.db",
    "input.query": "write one SELECT",
    "input.path": "write a file, a glob, a folder, or a list of them",
    "output.connection": "write postgresql://user@host/db or sqlite:///file.db",
    "output.table_name": "write table or schema.table",
    "output.path": "write a folder",
    "output.columns": "list the input columns to keep; leave it out to keep all",
    "rejects.path": "write a folder",
    "rejects.max_reject_ratio": "use a number from 0 to 1",
    "config.batch_size": "use a whole number from 1 to 1000000",
    "config.parallelism": "use a whole number from 1 to 256",
    "config.max_memory_gb": "use a number above 0",
    "config.timeout_minutes": "use a number above 0",
    "config.retry_count": "use a whole number from 0 to 100",
}


def _remedy_for(location: Sequence[int | str], value: Any = None) -> str:
    if isinstance(location[-1], int):
        return "write the name of a column" + _quoted(value)
    field = _dotted(location)
    remedy = _REMEDIES.get(field) or f"use {_either(_choices(location))}"
    wants_text = not remedy.startswith(("use a", "list"))
    return remedy + (_quoted(value) if wants_text else "")


def _quoted(value: Any) -> str:
    return ", in quotes" if isinstance(value, bool | int | float) else ""


def _unknown(location: Sequence[int | str], values: Mapping[Any, Any]) -> str:
    """Why a key is not known, and the nearest that is."""
    part, key = str(location[0]), str(location[-1])
    if len(location) == 1:
        near = difflib.get_close_matches(key.lower(), _PARTS, n=1)
        inner = [field for field in _FIELDS if field.partition(".")[2] == key.lower()]
        if near or inner:
            return f"is not known; did you mean {_either(near or inner)}?"
        return f"is not known; use {_either(_PARTS, 'and')}"
    kinds = _PARTS[part]
    tag = values[part].get(_TAGS[part]) if part in _TAGS else ""
    own = kinds[tag].model_fields
    near = difflib.get_close_matches(key.lower(), own, n=1)
    if near:
        return f"is not known; did you mean {part}.{near[0]}?"
    for other, kind in kinds.items():
        if key in kind.model_fields:
            return f"belongs to {_TAGS[part]} {other}, and this is {tag}; take it out or change {part}.{_TAGS[part]}"
    # The right word in the wrong place.
    elsewhere = [field for field in _FIELDS if field.partition(".")[2] == key.lower()]
    elsewhere += difflib.get_close_matches(f"{part}.{key}".lower(), _FIELDS, n=1, cutoff=0.8)
    if elsewhere:
        return f"is not known; did you mean {elsewhere[0]}?"
    return f"is not known; use {_either(own, 'and')}"


def _choices(location: Sequence[int | str]) -> list[str]:
    """The words that a field takes."""
    for kind in _PARTS[str(location[0])].values():
        field = kind.model_fields.get(str(location[-1]))
        if field is not None:
            words = [get_args(each) or each for each in get_args(field.annotation) if each is not type(None)]
            return [str(word) for each in words for word in (each if isinstance(each, tuple) else (each,))]
    return []


def _dotted(location: Iterable[int | str]) -> str:
    return "".join(f"[{each}]" if isinstance(each, int) else f".{each}" for each in location).lstrip(".")


def _either(words: Iterable[str], joint: str = "or") -> str:
    listed = list(words)
    return f"{', '.join(listed[:-1])} {joint} {listed[-1]}" if len(listed) > 1 else "".join(listed)


def _described(value: Any, secret: bool = False) -> str:
    """What a value is and, unless it is long or secret, the value."""
    if value is None or value == "":
        return "empty"
    if isinstance(value, str):
        return f"the text {_shown(value, secret)}"
    if isinstance(value, bool | int | float):
        kind = "truth value" if isinstance(value, bool) else "number"
        return f"a {kind}" if secret else f"the {kind} {_shown(value)}"
    return (
        "a list" if isinstance(value, list) else "a mapping" if isinstance(value, dict) else f"a {type(value).__name__}"
    )


def _key(key: str) -> str:
    """A key as the user wrote it, or in quotes where it is no plain word."""
    return key if re.fullmatch(rf"[\w.-]{{1,{_SHOWN_CHARS}}}", key) else _shown(key)


def _shown(value: Any, secret: bool = False) -> str:
    """A value as the user wrote it, on one line, cut short, without the password of a URI."""
    if isinstance(value, str):
        if secret or "://" in value:
            from transforms.connection import Connection

            return Connection(value).describe()
        text = repr(" ".join(value.split()))
    else:
        text = json.dumps(value, default=repr) if isinstance(value, bool | int | float | None) else _described(value)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"


# --- reading the text --------------------------------------------------------------------------------------------


def _load(text: str, name: str) -> Any:
    stripped = text.lstrip()
    if name.endswith(".json"):
        return _load_json(text, name)
    if stripped.startswith("{"):
        # JSON, most likely. YAML does not allow its tabs; JSON does not allow YAML's `{a: 1}`.
        try:
            return _load_json(text, name)
        except RequestError as error:
            if not isinstance(error.__cause__, json.JSONDecodeError) or "\t" in text:
                raise
    try:
        return yaml.load(text, Loader=_Yaml)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f" line {mark.line + 1}" if mark else ""
        reason = error.problem or error.context or "it cannot be read"
        raise _refused(f"{name}{line} is not YAML: {' '.join(reason.split())}{_yaml_hint(reason)}") from error
    except yaml.YAMLError as error:
        raise _refused(f"{name} is not YAML: {' '.join(str(error).split())}") from error


def _yaml_hint(reason: str) -> str:
    if "\\t" in reason:
        return "; indent with spaces"
    if "mapping values are not allowed" in reason:
        return "; quote text that holds ': '"
    return ""


def _load_json(text: str, name: str) -> Any:
    def without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        twins = [key for key in dict.fromkeys(keys) if keys.count(key) > 1]
        if twins:
            raise _refused(f"{name} holds the key {_shown(twins[0])} twice; keep one")
        return dict(pairs)

    try:
        return json.loads(text, object_pairs_hook=without_twins)
    except json.JSONDecodeError as error:
        raise _refused(f"{name} line {error.lineno} is not JSON: {error.msg} at column {error.colno}") from error


class _Yaml(yaml.SafeLoader):
    """YAML 1.2's core schema: `no`, `on`, `1:30` and dates are text. Tags, and keys that come twice, are refused."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
    yaml_constructors: ClassVar[dict[str | None, Any]] = {}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Like the base class's, but without twins."""
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _not_ours("a key is not a plain word", key)
            if key.value in seen:
                raise _not_ours(f"the key {_shown(key.value)} comes twice; keep one", key)
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def refuse_tag(self, node: yaml.Node) -> None:
        """Refuse what the user has tagged."""
        tag = node.tag.replace("tag:yaml.org,2002:", "!!")
        raise _not_ours(f"a value is tagged {_shown(tag)}; write it without", node)


def _not_ours(problem: str, node: yaml.Node) -> yaml.MarkedYAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


# https://yaml.org/spec/1.2.2/#1032-tag-resolution; numbers that begin with a 0, octal or not, stay text.
_EXPONENT = r"[eE][-+]?[0-9]+"
for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(0|[1-9][0-9]*)", list("-+0123456789")),
    (
        "float",
        rf"[-+]?(\.[0-9]+({_EXPONENT})?|[0-9]+\.[0-9]*({_EXPONENT})?|[0-9]+{_EXPONENT}|\.inf)|\.nan",
        list("-+.0123456789"),
    ),
):
    _Yaml.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first)
for _tag in ("null", "bool", "int", "float", "str", "seq", "map"):
    _tag = f"tag:yaml.org,2002:{_tag}"
    _Yaml.add_constructor(_tag, yaml.SafeLoader.yaml_constructors[_tag])
_Yaml.add_constructor(None, _Yaml.refuse_tag)
