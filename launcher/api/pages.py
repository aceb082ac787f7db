"""Pages of lists. A cursor says where the next one begins; what is in it is nobody else's business."""

import base64
import binascii
import json
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, Any, TypeVar

from fastapi import Query

from launcher.errors import Problem, RequestError

_T = TypeVar("_T")

MAX_LIMIT = 500
# A row is small beside a job; where rows are large, a page has fewer than it may (`launcher.rows.bounds`).
MAX_ROWS = 10_000
# A cursor holds a time and an id.
_MAX_CURSOR_CHARS = 400
_NAME = re.compile(r"[!-~]{1,200}")
# Far beyond any result, and within what databases count to.
_MAX_OFFSET = 2**53

Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="How many at most.", examples=[50])]
RowLimit = Annotated[
    int, Query(ge=1, le=MAX_ROWS, description="How many at most; fewer come where they are large.", examples=[1000])
]
Cursor = Annotated[
    str | None,
    Query(
        max_length=_MAX_CURSOR_CHARS,
        description="`next_cursor` of the page before; left out: the first page.",
        examples=["WyJqIiwiMjAyNS0wMy0xNVQxMDowMDowMCswMDowMCIsImJhdGNoLTAxMjM0NTY3ODkiXQ"],
    ),
]


def page(
    found: Sequence[_T], limit: int, shown: Callable[[_T], Any], cursor_of: Callable[[_T], str]
) -> tuple[list[Any], str | None]:
    """What is shown of a page, and the cursor of the next, given one more than is to be shown."""
    kept = found[:limit]
    return [shown(each) for each in kept], cursor_of(kept[-1]) if len(found) > limit else None


def time_cursor(kind: str, at: datetime, name: str) -> str:
    """Behind what was made at a time, under a name.

    Args:
        kind: of the list: a cursor is of no use for another.
    """
    return _written([kind, at.isoformat(), name])


def read_time_cursor(kind: str, cursor: str | None) -> tuple[datetime, str] | None:
    """What `time_cursor` wrote; None for no cursor.

    Raises:
        RequestError: it is none of ours.
    """
    values = _read(kind, cursor)
    if values is None:
        return None
    match values:
        case [str(text), str(name)] if _NAME.fullmatch(name):
            try:
                at = datetime.fromisoformat(text)
            except ValueError:
                raise _wrong() from None
            if at.tzinfo is not None:
                return at, name
    raise _wrong()


def name_cursor(kind: str, name: str) -> str:
    """Behind a name."""
    return _written([kind, name])


def read_name_cursor(kind: str, cursor: str | None) -> str | None:
    """What `name_cursor` wrote; None for no cursor.

    Raises:
        RequestError: it is none of ours.
    """
    match _read(kind, cursor):
        case None:
            return None
        case [str(name)] if _NAME.fullmatch(name):
            return name
    raise _wrong()


def offset_cursor(kind: str, offset: int) -> str:
    """At a row."""
    return _written([kind, offset])


def read_offset_cursor(kind: str, cursor: str | None) -> int:
    """What `offset_cursor` wrote; 0 for no cursor.

    Raises:
        RequestError: it is none of ours.
    """
    match _read(kind, cursor):
        case None:
            return 0
        case [int(offset)] if 0 <= offset < _MAX_OFFSET and not isinstance(offset, bool):
            return offset
    raise _wrong()


def _written(values: list[Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(values, separators=(",", ":")).encode()).decode().rstrip("=")


def _read(kind: str, cursor: str | None) -> list[Any] | None:
    if cursor is None:
        return None
    try:
        data = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        values = json.loads(data)
    except (binascii.Error, ValueError, RecursionError):
        raise _wrong() from None
    if not isinstance(values, list) or not values or values[0] != kind:
        raise _wrong()
    return values[1:]


def _wrong() -> RequestError:
    return RequestError([Problem("cursor", "is no cursor of this list; take next_cursor of the page before")])
