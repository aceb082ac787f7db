"""Server-sent events become values (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

import json
import re
from collections.abc import Generator, Iterable, Iterator, Mapping

from launcher.client.answers import Event
from launcher.client.wire import Wire

# The service sends a comment every 15 s when nothing happens; a connection that is silent for longer is dead.
SILENCE_S = 25.0

_LINE_END = re.compile(rb"\r\n|\n|\r")


def read_events(wire: Wire, path: str, last_id: str | None = None) -> Generator[Event | None, None, None]:
    """The events of one connection, until the server ends it. None for each sign of life between them.

    Args:
        last_id: the id of the last event that is known; it goes on behind that.

    Raises:
        ServerUnavailable: the connection breaks.
        PenstockError: see the tree.
    """
    headers = {} if last_id is None else {"Last-Event-ID": last_id}
    with wire.stream(path, headers, SILENCE_S) as pieces:
        yield from _events(_lines(pieces))


def _lines(pieces: Iterable[bytes]) -> Iterator[str]:
    """Whole lines; the rest of a connection that broke within one is no line."""
    rest = b""
    for piece in pieces:
        rest += piece
        # A line may end in two characters, and the second is perhaps still to come.
        held = rest.endswith(b"\r")
        *lines, rest = _LINE_END.split(rest[:-1] if held else rest)
        rest += b"\r" if held else b""
        for line in lines:
            yield line.decode("utf-8", errors="replace")


def _events(lines: Iterable[str]) -> Iterator[Event | None]:
    fields: dict[str, str] = {}
    data: list[str] = []
    for line in lines:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            yield _event(fields, data)
            fields, data = {}, []
        elif not name:
            yield None
        elif name == "data":
            data.append(value)
        else:
            fields[name] = value


def _event(fields: Mapping[str, str], data: list[str]) -> Event | None:
    """An event; None for one that tells nothing that can be read."""
    try:
        told = json.loads("\n".join(data))
    except (ValueError, RecursionError):
        return None
    return Event(fields.get("event", "message"), told, fields.get("id") or None) if isinstance(told, dict) else None
