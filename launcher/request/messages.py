"""How a mistake is told: where, what is wrong, what to do; in one line, without secrets.

What is told of a field is read off the shapes: its type, its words, the `Remedy` beside it, its neighbours' names.
"""

import difflib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, NamedTuple, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from launcher.errors import Problem, RequestError
from launcher.request.parts import Part, Remedy

# As much of a value as a line of a message bears; of a URI its place should stay to be seen.
_SHOWN_CHARS = 60
_SHOWN_URI_CHARS = 200

Location = tuple[int | str, ...]


class Mistake(NamedTuple):
    """A problem, before all of them are put in order. `at` leads to it from the outermost mapping."""

    at: Location
    message: str

    def problem(self) -> Problem:
        """The mistake as the user is told it."""
        return Problem(dotted(self.at), self.message)


def refused(line: str) -> RequestError:
    """The error of a request that is wrong as a whole."""
    return RequestError([Problem("", line)])


# --- shapes --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Place:
    """A location, as the shapes know it.

    Args:
        at: the location as the user would write it.
        kinds: the mappings that may stand around it, by the word that chooses among them ("" where there is one only).
        tag: the word that was written.
        tag_name: the field that holds this word.
        field: what is known of the field, or of the list that it is an entry of; None where it is not known.
        is_entry: it is an entry of a list or of a free mapping.
    """

    at: Location
    kinds: dict[str, type[Part]]
    tag: str
    tag_name: str
    field: FieldInfo | None
    is_entry: bool

    @property
    def remedy(self) -> Remedy:
        known = [each for each in self.field.metadata if isinstance(each, Remedy)] if self.field else []
        return known[0] if known else Remedy("")

    @property
    def to_do(self) -> str:
        """What to write here."""
        return self.remedy.each if self.is_entry and self.remedy.each else self.remedy.text or self.words()

    def words(self) -> str:
        """The words that the field takes."""
        return f"use {either(_words(self.field.annotation))}" if self.field else ""


def _place(shape: type[Part], location: Sequence[int | str]) -> _Place:
    at: list[int | str] = []
    kinds, tag, tag_name = {"": shape}, "", ""
    field: FieldInfo | None = None
    is_entry = False
    for step in location:
        inner = _kinds(field)
        if field is not None and inner:
            kinds, tag, tag_name = inner, "", field.discriminator if isinstance(field.discriminator, str) else ""
            field = None
            if tag_name:
                tag = str(step)  # pydantic's name for the branch that the tag chose
                continue
        if field is None:
            field = kinds[tag].model_fields.get(str(step)) if tag in kinds else None
            is_entry = False
        elif step == "[key]":  # pydantic's name for the key itself, after its name
            continue
        else:
            is_entry = True
        at.append(step)
    return _Place(tuple(at), kinds, tag, tag_name, field, is_entry)


def _kinds(field: FieldInfo | None) -> dict[str, type[Part]]:
    """The mappings that a field may hold, by the word that chooses among them."""
    if field is None:
        return {}
    found = [each for each in _flat(field.annotation) if isinstance(each, type) and issubclass(each, Part)]
    name = field.discriminator
    if not isinstance(name, str):
        return {"": found[0]} if found else {}
    return dict(sorted((_words(each.model_fields[name].annotation)[0], each) for each in found))


def _flat(annotation: Any) -> list[Any]:
    """A type and the types in it, at any depth."""
    if get_origin(annotation) is Literal:
        return [annotation]
    return [annotation, *(inner for each in get_args(annotation) for inner in _flat(each))]


def _words(annotation: Any) -> list[str]:
    return [str(word) for each in _flat(annotation) if get_origin(each) is Literal for word in get_args(each)]


def _names(kinds: dict[str, type[Part]]) -> list[str]:
    return list(dict.fromkeys(name for kind in kinds.values() for name in kind.model_fields))


@cache
def _fields(shape: type[Part]) -> tuple[str, ...]:
    """All fields of a shape, dotted, each before what is in it."""
    found = []
    for name, field in shape.model_fields.items():
        found.append(name)
        found += [f"{name}.{inner}" for kind in _kinds(field).values() for inner in _fields(kind)]
    return tuple(dict.fromkeys(found))


def in_order(shape: type[Part], at: Location) -> tuple[int, ...]:
    """What mistakes are sorted by: they are told in the order of the fields, not in that in which they were found."""
    order = []
    kinds = {"": shape}
    for step in at:
        if isinstance(step, int):
            order.append(step)
            continue
        names = _names(kinds)
        order.append(names.index(step) if step in names else len(names))
        known = [kind.model_fields[step] for kind in kinds.values() if step in kind.model_fields]
        kinds = _kinds(known[0]) if known else {}
    return tuple(order)


# --- lines ---------------------------------------------------------------------------------------------------------


def mistake_of(details: ErrorDetails, shape: type[Part]) -> Mistake:
    """What pydantic found, in our words."""
    kind, value = details["type"], details["input"]
    location = list(details["loc"])
    is_key = bool(location) and location[-1] == "[key]"
    if kind == "invalid_key":  # a number in place of a word
        location[-1] = str(location[-1])
    place = _place(shape, location)
    if kind in ("extra_forbidden", "invalid_key"):
        return Mistake(place.at, _unknown(place, shape))
    return _tag_mistake(kind, place, value) or Mistake(place.at, _wrong(details, place, value, is_key))


def _tag_mistake(kind: str, place: _Place, value: Any) -> Mistake | None:
    """The word that chooses among kinds of mappings is wrong."""
    if place.field is None or kind not in ("union_tag_invalid", "union_tag_not_found"):
        return None
    name = str(place.field.discriminator)
    remedy = f"use {either(_kinds(place.field))}"
    if kind == "union_tag_not_found":
        return Mistake((*place.at, name), f"is missing; {remedy}")
    return Mistake((*place.at, name), f"is {shown(value.get(name))}, which is not known here; {remedy}")


def _wrong(details: ErrorDetails, place: _Place, value: Any, is_key: bool) -> str:
    kind, context, to_do = details["type"], details.get("ctx", {}), place.to_do
    if kind == "told":
        return str(context["line"])
    if kind == "missing":
        return f"is missing; {to_do}"
    if kind == "literal_error":
        word = shown(value) if isinstance(value, str) else described(value)
        return f"is {word}, which is not known here; {place.words()}"
    if kind in ("greater_than_equal", "less_than_equal", "greater_than", "finite_number"):
        return f"is {shown(value)}; {to_do}"
    if kind == "string_too_long":
        if is_key:
            return f"is a name of {len(value):,} characters; use at most {context['max_length']:,}"
        return f"has {len(value):,} characters; use at most {context['max_length']:,}"
    if kind == "too_long":
        return f"has {len(value):,} entries; use at most {context['max_length']:,}"
    if is_key and kind == "string_too_short":
        return "has no name; write one"
    if kind in ("string_too_short", "too_short"):
        return f"is too short; {to_do}" if value else f"is empty; {to_do}"
    what = described(value, place.remedy.shows)
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        names = _names(_kinds(place.field))
        return f"is {what}; " + (f"it is a mapping with {either(names, 'and')}" if names else to_do)
    if kind == "string_type":
        return f"is {what}; {to_do}" + (", in quotes" if isinstance(value, bool | int | float) else "")
    if kind in ("bool_type", "int_type", "float_type", "int_from_float", "list_type"):
        return f"is {what}; {to_do}"
    return f"is {what}: {details['msg']}; {to_do}"


def _unknown(place: _Place, shape: type[Part]) -> str:
    """Why a key is not known, and the nearest that is."""
    around, key = place.at[:-1], str(place.at[-1])
    own = list(kind.model_fields) if (kind := place.kinds.get(place.tag)) else []
    # A key of a thousand letters is no slip, and comparing it takes long.
    near = difflib.get_close_matches(key.lower(), own, n=1) if len(key) <= _SHOWN_CHARS else []
    if near:
        return f"is not known; did you mean {dotted((*around, near[0]))}?"
    for other, kind in place.kinds.items():
        if key in kind.model_fields:
            tag = dotted((*around, place.tag_name))
            return f"belongs to {place.tag_name} {other}, and this is {place.tag}; take it out or change {tag}"
    # The right word in the wrong place.
    elsewhere = [field for field in _fields(shape) if field.rpartition(".")[2] == key.lower()]
    if not elsewhere and around and len(key) <= _SHOWN_CHARS:
        elsewhere = difflib.get_close_matches(dotted(place.at).lower(), _fields(shape), n=1, cutoff=0.8)
    if elsewhere:
        return f"is not known; did you mean {either(elsewhere)}?"
    return f"is not known; use {either(own, 'and')}"


# --- words ---------------------------------------------------------------------------------------------------------


def dotted(at: Iterable[int | str]) -> str:
    """A location as messages name it: `model.features[2]`."""
    return "".join(f"[{each}]" if isinstance(each, int) else f".{_key(each)}" for each in at).lstrip(".")


def _key(key: str) -> str:
    """A key as the user wrote it, or in quotes where it is no plain word."""
    return key if re.fullmatch(rf"[\w.-]{{1,{_SHOWN_CHARS}}}", key) else shown(key)


def either(words: Iterable[str], joint: str = "or") -> str:
    """Words, listed as in a sentence."""
    listed = list(words)
    return f"{', '.join(listed[:-1])} {joint} {listed[-1]}" if len(listed) > 1 else "".join(listed)


def described(value: Any, shows: Literal["all", "masked", "nothing"] = "all") -> str:
    """What a value is and, unless it is secret, the value."""
    if value is None or value == "":
        return "empty"
    if isinstance(value, str):
        return "a text" if shows == "nothing" else f"the text {shown(value, secret=shows == 'masked')}"
    if isinstance(value, bool | int | float):
        kind = "truth value" if isinstance(value, bool) else "number"
        return f"the {kind} {shown(value)}" if shows == "all" else f"a {kind}"
    return (
        "a list" if isinstance(value, list) else "a mapping" if isinstance(value, dict) else f"a {type(value).__name__}"
    )


def shown(value: Any, secret: bool = False) -> str:
    """A value as the user wrote it, on one line, cut short, without the password of a URI."""
    most = _SHOWN_CHARS
    if isinstance(value, str):
        if secret or "://" in value:
            from transforms.connection import Connection

            # A little more than is shown: white space is drawn together, and may come in megabytes.
            text = _on_one_line(Connection(value).describe()[: 10 * _SHOWN_URI_CHARS])
            most = _SHOWN_URI_CHARS
        else:
            text = repr(" ".join(value.split()))
    else:
        text = json.dumps(value, default=repr) if isinstance(value, bool | int | float | None) else described(value)
    return text if len(text) <= most else f"{text[:most]}…"


def _on_one_line(text: str) -> str:
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in " ".join(text.split())
    )
