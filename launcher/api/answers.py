"""Answers are written: JSON once, by hand, for speed; other media types where somebody wants them."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.responses import Response

from launcher.errors import NotAcceptable

JSON = "application/json"
ARROW = "application/vnd.apache.arrow.stream"
TEXT = "text/plain"


def answer(values: Any, status_code: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """`values` as a JSON answer, as they are: nothing looks whether they are of the model that documents them."""
    return Response(dumped(values), status_code, headers, JSON)


def written(body: bytes, headers: Mapping[str, str] | None = None) -> Response:
    """What is JSON already, as an answer."""
    return Response(body, headers=headers, media_type=JSON)


def dumped(values: Any) -> bytes:
    """JSON in UTF-8.

    Raises:
        ValueError: there is a NaN in it, which JSON does not have.
    """
    return json.dumps(values, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode(errors="replace")


def wanted(accept: str | None, offered: Sequence[str]) -> str:
    """Which of the media types an `Accept` header wants most (RFC 9110, 12.5.1); the first among equals.

    Raises:
        NotAcceptable: none of them.
    """
    if accept is None or not accept.strip():
        return offered[0]
    ranges = [_range(each) for each in accept.split(",")]
    best = max(offered, key=lambda each: _quality(each, ranges))
    if _quality(best, ranges) <= 0:
        raise NotAcceptable(tuple(offered))
    return best


def _range(text: str) -> tuple[str, float]:
    name, *parameters = (part.strip().lower() for part in text.split(";"))
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip() == "q":
            try:
                return name, float(value)
            except ValueError:
                return name, 0.0
    return name, 1.0


def _quality(media_type: str, ranges: Sequence[tuple[str, float]]) -> float:
    """What the most specific range that fits says."""
    for pattern in (media_type, f"{media_type.split('/')[0]}/*", "*/*"):
        for name, quality in ranges:
            if name == pattern:
                return quality
    return 0.0
