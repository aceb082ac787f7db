"""Text becomes values: YAML 1.2 and JSON, read so that no key is lost and no word becomes something else."""

import json
import math
import re
from collections import Counter
from collections.abc import Callable
from typing import Any, ClassVar

import yaml

from launcher.errors import RequestError
from launcher.request.messages import refused, shown

# No body needs more than six levels.
_MAX_LEVELS = 32
# As much of a number as a line bears.
_SHOWN_DIGITS = 30


def load(text: str, name: str) -> Any:
    """The values of a text in YAML or JSON; JSON is what a name in `.json` says or an opening brace.

    Args:
        name: how messages call the text.

    Raises:
        RequestError: it is neither, or a key comes twice.
        RecursionError: it is nested too deeply.
        ValueError: it holds a number of more than 4,300 digits.
    """
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
        raise refused(f"{name}{line} is not YAML: {' '.join(reason.split())}{_yaml_hint(reason, text)}") from error
    except yaml.YAMLError as error:
        raise refused(f"{name} is not YAML: {' '.join(str(error).split())}") from error


def scalar(text: str) -> Any:
    """What one word of YAML is: null, a truth value, a number, or else the text itself."""
    if not text:
        return None
    loader = _Yaml("")
    try:
        tag = loader.resolve(yaml.ScalarNode, text, (True, False))
        # A number of over 4,300 digits is no number.
        return loader.construct_object(yaml.ScalarNode(tag, text))
    except ValueError:
        return text
    finally:
        loader.dispose()


def _yaml_hint(reason: str, text: str) -> str:
    if "\\t" in reason:
        return "; indent with spaces"
    if "mapping values are not allowed" in reason:
        return "; quote text that holds ': '"
    if "not a plain word" in reason and "{{" in text:
        return "; quote text that begins with {{"
    return ""


def json_body(data: bytes, name: str = "the body") -> Any:
    """The values of a JSON text as it came over the network.

    Stricter than Python's reader: no NaN or Infinity, no number that turns into infinity, no key twice, no depth that
    some later step may stumble over. Half characters (`\\ud800`) pass; whoever checks the values refuses them.

    Args:
        name: how messages call the text.

    Raises:
        RequestError: in one line, without the text.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # Not from the error: it carries the text.
        raise refused(f"{name} is not UTF-8 text (byte {error.start + 1}); send it as UTF-8") from None
    if not text.strip():
        raise refused(f"{name} is empty; send a JSON object")
    too_deep = refused(f"{name} is nested more than {_MAX_LEVELS} levels deep; no request needs more than six")
    try:
        values = _load_json(text, name, parse_constant=_refuse_constant(name), parse_float=_finite(name))
    except RecursionError:
        raise too_deep from None
    except ValueError:
        # Python reads no number of over 4,300 digits.
        raise refused(f"{name} holds a number that is too long; write a shorter one") from None
    if _is_deeper(values, _MAX_LEVELS):
        raise too_deep
    return values


def _refuse_constant(name: str) -> Callable[[str], Any]:
    def refuse(constant: str) -> Any:
        raise refused(f"{name} holds {constant}, which JSON does not have; write a number or null")

    return refuse


def _finite(name: str) -> Callable[[str], float]:
    def read(digits: str) -> float:
        number = float(digits)
        if math.isinf(number):
            raise refused(f"{name} holds the number {digits[:_SHOWN_DIGITS]}, which is too large; write a smaller one")
        return number

    return read


def _is_deeper(value: Any, levels: int) -> bool:
    """Whether lists and mappings stand in each other more than `levels` deep."""
    level = [[value]]
    for _ in range(levels + 1):
        level = [
            list(inner.values()) if isinstance(inner, dict) else inner
            for each in level
            for inner in each
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


def _load_json(text: str, name: str, **options: Any) -> Any:
    def without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) < len(pairs):
            twin, _ = Counter(key for key, _ in pairs).most_common(1)[0]
            raise refused(f"{name} holds the key {shown(twin)} twice; keep one")
        return values

    try:
        return json.loads(text, object_pairs_hook=without_twins, **options)
    except json.JSONDecodeError as error:
        raise refused(f"{name} line {error.lineno} is not JSON: {error.msg} at column {error.colno}") from error


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
                raise _not_ours(f"the key {shown(key.value)} comes twice; keep one", key)
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def refuse_tag(self, node: yaml.Node) -> None:
        """Refuse what the user has tagged."""
        tag = node.tag.replace("tag:yaml.org,2002:", "!!")
        raise _not_ours(f"a value is tagged {shown(tag)}; write it without", node)


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
