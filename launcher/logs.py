"""Lines of logs: one JSON object each in a service, plain text for `penstock run`; never with a secret in them."""

import json
import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

from launcher.state.job import Job

TEXT_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
# What callers may add to a line by `extra`.
FIELDS = ("job_id", "tenant", "attempt", "method", "path", "status_code", "duration_ms", "request_id", "trace_id")


def fields_of(job: Job) -> dict[str, Any]:
    """What each line about a job says of it."""
    return {"job_id": job.id, "tenant": job.tenant, "attempt": job.attempt}


class Masking(Protocol):
    """What is needed of a `transforms.connection.Connection`, which takes 2 s to import."""

    def mask(self, message: str) -> str:
        """`message` without the connection's secrets."""
        ...


class JsonFormatter(logging.Formatter):
    """Each record is one JSON object on one line: time, level, logger, message, and the fields it was given.

    Args:
        fields: of every line, such as the job and its tenant.
    """

    def __init__(self, fields: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self._fields = dict(fields or {})

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        return self._written(self.values(record))

    def format_masked(self, record: logging.LogRecord, connections: "Sequence[Masking]") -> str:
        """The line without the secrets of some connections.

        They are looked for before JSON is made of it: there a quote in a secret is written otherwise, and where a
        number was a secret, what takes its place would be no JSON.
        """

        def masked_value(name: str, value: Any) -> Any:
            own = name in self._fields or isinstance(value, bool | int | float | None)
            return value if own else masked_lines(str(value), connections)

        return self._written({name: masked_value(name, value) for name, value in self.values(record).items()})

    def values(self, record: logging.LogRecord) -> dict[str, Any]:
        """What the line says, by name."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **self._fields,
        }
        line |= {name: value for name in FIELDS if (value := getattr(record, name, None)) is not None}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return line

    @staticmethod
    def _written(line: Mapping[str, Any]) -> str:
        return json.dumps(line, ensure_ascii=False, default=str)


def text_line(line: str) -> str:
    """A line of a service's log for people; what is no such line, as what a model printed, stays as it is."""
    try:
        values = json.loads(line)
        text = f"{values['time']} {values['level']} {values['logger']}: {values['message']}"
        return text + (f"\n{values['exception']}" if "exception" in values else "")
    except (ValueError, TypeError, KeyError, RecursionError):
        return line


class MaskingFormatter(logging.Formatter):
    """Another formatter's lines, tracebacks too, without the secrets of some connections."""

    def __init__(self, inner: logging.Formatter, connections: Sequence[Masking]) -> None:
        super().__init__()
        self._inner = inner
        self._connections = connections

    def format(self, record: logging.LogRecord) -> str:
        """The line, or the lines."""
        if isinstance(self._inner, JsonFormatter):
            return self._inner.format_masked(record, self._connections)
        return masked_lines(self._inner.format(record), self._connections)


def masked(text: str, connections: Sequence[Masking]) -> str:
    """`text` on one line, without the secrets of `connections`."""
    text = " ".join(text.split())
    for connection in connections:
        text = connection.mask(text)
    return text


def masked_lines(text: str, connections: Sequence[Masking]) -> str:
    """`text` without the secrets of `connections`; lines that hold none stay as they are."""

    def line(written: str) -> str:
        shown = masked(written, connections)
        return written if shown == " ".join(written.split()) else shown

    return "\n".join(map(line, text.splitlines()))
