"""Values are held against the shape of a request, and all that is wrong is gathered before anything is told."""

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import ValidationError

from launcher.errors import Problem, RequestError
from launcher.request.messages import Location, Mistake, described, dotted, in_order, mistake_of, shown
from launcher.request.parts import (
    FEATURES,
    INPUT_PATH,
    INPUT_SCHEMA,
    OUTPUT_COLUMN,
    OUTPUTS,
    Part,
    Remedy,
)
from launcher.request.paths import path_fault
from predictors.finding import written_as_class
from predictors.flavors import FLAVORS, flavor_of, known_flavors
from transforms.typenames import type_named

_Shape = TypeVar("_Shape", bound=Part)
# Finds what is wrong though each field by itself is of the right type, given the values and where mistakes are known
# already; silent where a type is wrong.
Between = Callable[[Mapping[Any, Any], set[Location]], list[Mistake]]

# Who makes more mistakes than this has sent something else; and telling one costs a search for near words.
_MAX_TOLD = 50
# As many names as a line bears.
_MAX_NAMES = 10
# The deepest request has a path in the list of an input of a job of a schedule.
_DEPTH = 6
# As deep as a value among the arguments of a class may be, and as many as there may be in all.
_ARGS_DEPTH, _MAX_ARGS = 8, 1_000
# How files of models end that only a class of the user's can load.
_OTHER_MODELS = (
    *(".pkl", ".pickle", ".joblib", ".pt", ".pth", ".h5", ".keras", ".pb", ".cbm", ".ubj", ".bst"),
    *(".safetensors", ".tflite", ".pmml", ".mlmodel", ".gguf"),
)
# PostgreSQL keeps no NUL, UTF-8 no half of a surrogate pair.
_NO_TEXT = re.compile("[\x00\ud800-\udfff]")


def checked(shape: type[_Shape], values: Mapping[Any, Any], between: Between, *, templates: bool = False) -> _Shape:
    """`values` as `shape` reads them.

    Args:
        templates: texts may hold `{{ … }}`; what will be in their place is checked when it is known.

    Raises:
        RequestError: names every field that is wrong, in the order of the fields.
    """
    clean, mistakes = _without_bad_characters(values)
    known = {mistake.at for mistake in mistakes}
    left_out = 0
    read: _Shape | None = None
    try:
        read = shape.model_validate(clean, context={"templates": templates})
    except ValidationError as error:
        found = error.errors(include_url=False)
        left_out = max(0, len(found) - _MAX_TOLD)
        mistakes += [
            each for each in (mistake_of(details, shape) for details in found[:_MAX_TOLD]) if each.at not in known
        ]
    mistakes += between(clean, {mistake.at for mistake in mistakes})
    if read is not None and not mistakes:
        return read
    mistakes = sorted(dict.fromkeys(mistakes), key=lambda mistake: in_order(shape, mistake.at))
    left_out += max(0, len(mistakes) - _MAX_TOLD)
    problems = [mistake.problem() for mistake in mistakes[:_MAX_TOLD]]
    if left_out:
        problems.append(Problem("", f"{left_out:,} more mistakes are not told; correct these first"))
    # Not from pydantic's error: that repeats values, secrets among them.
    raise RequestError(problems)


def part(values: Mapping[Any, Any], name: str) -> Mapping[Any, Any]:
    """A mapping in a mapping; empty where there is none."""
    value = values.get(name)
    return value if isinstance(value, dict) else {}


def model_mistakes(
    model: Mapping[Any, Any],
    known: set[Location],
    at: Location,
    templates: bool,
    max_chars: int | None = None,
    max_names: int | None = None,
) -> list[Mistake]:
    """What is wrong with a model, its fields taken together.

    Args:
        at: where the model is.
        templates: its uri may hold `{{ … }}`.
        max_chars, max_names: bounds of names of columns, and of how many there are.
    """
    uri, flavor = model.get("uri"), model.get("flavor")
    mistakes = []
    if isinstance(uri, str) and uri and (fault := _uri_fault(uri, flavor, templates)):
        mistakes.append(Mistake((*at, "uri"), f"is {shown(uri)}, {fault}"))
    elif isinstance(uri, str) and uri:
        if flavor is None and (*at, "flavor") not in known and flavor_of(uri) is None:
            line = f"is missing and {dotted((*at, 'uri'))} {shown(uri)} does not tell it; use {known_flavors()}"
            mistakes.append(Mistake((*at, "flavor"), line))
        if flavor == "python" and not FLAVORS[flavor].uri.fullmatch(uri) and not (templates and "{{" in uri):
            line = f"is {shown(uri)}, and flavor python needs module:Class; name a class"
            mistakes.append(Mistake((*at, "uri"), line))
    names = _Names(max_chars, max_names)
    mistakes += _args_mistakes(model, (*at, "args"))
    mistakes += names.of_features(model.get("features"), (*at, "features"))
    return mistakes + names.of_outputs(model.get("outputs"), (*at, "outputs"))


def _uri_fault(uri: str, flavor: Any, templates: bool) -> str | None:
    """What is wrong with a model's uri that is by its form no model of ours, to follow it, and what to write."""
    if flavor != "python" and (fault := path_fault(uri)):
        return fault
    if flavor not in (None, "python") or (templates and "{{" in uri):
        return None
    written = written_as_class(uri)
    if written is not None:
        is_file = uri.partition(":")[0].endswith(".py")
        return f"and a {'module' if is_file else 'colon'} is wanted before the class; write {written}"
    if flavor is None and uri.lower().endswith(_OTHER_MODELS):
        return (
            "which is no ONNX file by its name; export the model to ONNX (skl2onnx, onnxmltools, torch.onnx, tf2onnx), "
            "or write a class that loads it, and name it as module:Class"
        )
    return None


@dataclass(frozen=True)
class _Names:
    """Finds what is wrong with names of columns, of which there may be so many of so many characters."""

    max_chars: int | None
    max_names: int | None

    def of_features(self, value: Any, at: Location) -> list[Mistake]:
        """A list of columns, or a mapping from inputs to their columns."""
        if value is None:
            return []
        if not isinstance(value, dict) or not value:
            return self._of_list(value, at, FEATURES, "column")
        mistakes = self._of_keys(value, at, "input")
        for name, columns in value.items():
            if isinstance(columns, str):
                mistakes += self._of_name(columns, (*at, str(name)), FEATURES)
            else:
                mistakes += self._of_list(columns, (*at, str(name)), FEATURES, "column")
        return mistakes

    def of_outputs(self, value: Any, at: Location) -> list[Mistake]:
        """A list of outputs, or a mapping from outputs to the names of their columns."""
        if value is None:
            return []
        if not isinstance(value, dict) or not value:
            return self._of_list(value, at, OUTPUTS, "output")
        mistakes = self._of_keys(value, at, "output")
        for name, to in value.items():
            if isinstance(to, list):
                mistakes += self._of_list(to, (*at, str(name)), OUTPUT_COLUMN, "column")
            else:
                mistakes += self._of_name(to, (*at, str(name)), OUTPUT_COLUMN)
        return mistakes

    def _of_list(self, value: Any, at: Location, remedy: Remedy, what: str) -> list[Mistake]:
        if not isinstance(value, list) or not value:
            found = "empty" if value in ([], {}) else described(value)
            return [Mistake(at, f"is {found}; {remedy.text}")]
        if self.max_names is not None and len(value) > self.max_names:
            return [Mistake(at, f"has {len(value):,} entries; use at most {self.max_names:,}")]
        mistakes = [each for i, name in enumerate(value) for each in self._of_name(name, (*at, i), remedy)]
        return mistakes + twice_mistakes(value, at, what)

    def _of_keys(self, value: Mapping[Any, Any], at: Location, what: str) -> list[Mistake]:
        if self.max_names is not None and len(value) > self.max_names:
            return [Mistake(at, f"has {len(value):,} entries; use at most {self.max_names:,}")]
        remedy = Remedy(f"write the name of an {what}")
        return [each for name in value for each in self._of_name(name, (*at, str(name)), remedy)]

    def _of_name(self, value: Any, at: Location, remedy: Remedy) -> list[Mistake]:
        if isinstance(value, str) and value:
            if self.max_chars is not None and len(value) > self.max_chars:
                return [Mistake(at, f"has {len(value):,} characters; use at most {self.max_chars:,}")]
            return []
        quotes = ", in quotes" if isinstance(value, bool | int | float) else ""
        return [Mistake(at, f"is {described(value)}; {remedy.each or remedy.text}{quotes}")]


def _args_mistakes(model: Mapping[Any, Any], at: Location) -> list[Mistake]:
    """What is wrong with the arguments of a class's constructor: they are kept as JSON."""
    args, uri = model.get("args"), model.get("uri")
    if not isinstance(args, dict) or not args:
        return []
    flavor = model.get("flavor") or (flavor_of(uri) if isinstance(uri, str) else None)
    if flavor == "onnx":
        return [Mistake(at, "are arguments of a Python class, and this is an ONNX model; take them out")]
    todo, count = [(args, 1)], 0
    while todo:
        value, depth = todo.pop()
        count += 1
        if depth > _ARGS_DEPTH or count > _MAX_ARGS:
            line = f"holds more than {_MAX_ARGS:,} values, or more than {_ARGS_DEPTH} levels; put them into a file"
            return [Mistake(at, line)]
        if isinstance(value, float) and not math.isfinite(value):
            return [Mistake(at, f"holds {value}, which JSON has not; leave it out")]
        if isinstance(value, dict | list):
            todo += [(each, depth + 1) for each in (value.values() if isinstance(value, dict) else value)]
    return []


def twice_mistakes(names: Any, at: Location, what: str) -> list[Mistake]:
    """Names that stand in a list more than once."""
    texts = [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
    twice = [name for name, count in Counter(texts).items() if count > 1]
    if not twice:
        return []
    listed = ", ".join(map(shown, twice[:_MAX_NAMES]))
    if len(twice) > _MAX_NAMES:
        listed += f" and {len(twice) - _MAX_NAMES:,} others"
    return [Mistake(at, f"names {listed} more than once; name each {what} once")]


def path_mistakes(
    source: Mapping[Any, Any], at: Location, max_chars: int | None = None, max_paths: int | None = None
) -> list[Mistake]:
    """What is wrong with the path, or the paths, of a Parquet input that stands at `at`."""
    if source.get("source") != "parquet" or "path" not in source:
        return []
    path, at = source["path"], (*at, "path")
    paths = path if isinstance(path, list) else [path]
    if not paths:
        return [Mistake(at, f"is an empty list; {INPUT_PATH.text}")]
    if max_paths is not None and len(paths) > max_paths:
        return [Mistake(at, f"has {len(paths):,} entries; use at most {max_paths:,}")]
    mistakes = []
    for index, each in enumerate(paths):
        here = (*at, index) if paths is path else at
        if not isinstance(each, str) or not each:
            mistakes.append(Mistake(here, f"is {described(each)}; {INPUT_PATH.text}"))
        elif max_chars is not None and len(each) > max_chars:
            mistakes.append(Mistake(here, f"has {len(each):,} characters; use at most {max_chars:,}"))
        else:
            mistakes += place_mistakes(each, here)
    return mistakes


def place_mistakes(path: Any, at: Location, fault_of: Callable[[str], str | None] = path_fault) -> list[Mistake]:
    """What is wrong with the path that stands at `at`, if it is a text."""
    fault = fault_of(path) if isinstance(path, str) else None
    return [Mistake(at, f"is {shown(path)}, {fault}")] if fault else []


def schema_mistakes(
    source: Mapping[Any, Any], at: Location, max_chars: int | None = None, max_columns: int | None = None
) -> list[Mistake]:
    """What is wrong with the types of columns of a Parquet input that stands at `at`."""
    schema, at = source.get("schema"), (*at, "schema")
    if source.get("source") != "parquet" or schema is None:
        return []
    if not isinstance(schema, dict):
        return [Mistake(at, f"is {described(schema)}; {INPUT_SCHEMA.text}")]
    if max_columns is not None and len(schema) > max_columns:
        return [Mistake(at, f"has {len(schema):,} entries; use at most {max_columns:,}")]
    mistakes = []
    for name, type in schema.items():
        here = (*at, str(name))
        longest = max(len(str(name)), len(type) if isinstance(type, str) else 0)
        if not isinstance(name, str) or not name:
            mistakes.append(Mistake(here, f"is {described(name)}; write the name of a column, in quotes"))
        elif not isinstance(type, str):
            mistakes.append(Mistake(here, f"is {described(type)}; {INPUT_SCHEMA.each}"))
        elif max_chars is not None and longest > max_chars:
            mistakes.append(Mistake(here, f"has {longest:,} characters; use at most {max_chars:,}"))
        else:
            try:
                type_named(type)
            except ValueError:
                mistakes.append(Mistake(here, f"is {shown(type)}, which is no type; {INPUT_SCHEMA.each}"))
    return mistakes


def _without_bad_characters(values: Mapping[Any, Any]) -> tuple[dict[Any, Any], list[Mistake]]:
    """A copy of `values` whose texts can be kept, and where they could not.

    Half characters would stop pydantic itself.
    """
    mistakes: list[Mistake] = []
    # YAML's aliases make one value stand in many places, even in itself.
    copies: dict[int, Any] = {}

    def told(text: str, at: Location) -> bool:
        found = _NO_TEXT.search(text)
        if found:
            line = f"holds the character U+{ord(found[0]):04X}, which cannot be stored; take it out"
            mistakes.append(Mistake(at, line))
        return bool(found)

    def copied(value: Any, at: Location) -> Any:
        if isinstance(value, str):
            return _NO_TEXT.sub("", value) if told(value, at) else value
        # What is deeper than any request is refused where it begins.
        if not isinstance(value, dict | list) or len(at) > _DEPTH + _ARGS_DEPTH:
            return value
        if id(value) in copies:
            return copies[id(value)]
        copy: Any = [] if isinstance(value, list) else {}
        copies[id(value)] = copy
        if isinstance(value, list):
            copy += [copied(each, (*at, index)) for index, each in enumerate(value)]
        else:
            for key, each in value.items():
                here = (*at, str(key))
                if not told(str(key), here):
                    copy[key] = copied(each, here)
        return copy

    # By a name: while it is in use, no other value may take its id.
    outermost = dict(values)
    return copied(outermost, ()), mistakes
