"""Lines of logs: JSON that machines read, and no secret in them whoever writes."""

import io
import json
import logging
from typing import Any

import pytest

from launcher.logs import JsonFormatter, MaskingFormatter, masked, masked_lines, text_line
from transforms.connection import Connection

URI = "postgresql://penstock:s3cr3t-w0rd@db.example.com/sales"
SECRET = "s3cr3t-w0rd"


@pytest.fixture
def written() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def handler(written: io.StringIO) -> logging.Handler:
    handler = logging.StreamHandler(written)
    handler.setFormatter(JsonFormatter({"job_id": "batch-1", "tenant": "acme", "attempt": 2}))
    return handler


@pytest.fixture
def log(handler: logging.Handler) -> logging.Logger:
    log = logging.Logger("launcher.test")
    log.addHandler(handler)
    return log


def told(written: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in written.getvalue().splitlines()]


def masking(handler: logging.Handler, *uris: str) -> None:
    assert handler.formatter is not None
    handler.setFormatter(MaskingFormatter(handler.formatter, [Connection(uri) for uri in uris]))


def fail_of(text: str) -> None:
    try:
        raise ValueError(text)
    except ValueError as cause:
        raise KeyError("the step failed") from cause


def test_a_record_is_one_object_on_one_line(log: logging.Logger, written: io.StringIO) -> None:
    log.info("%d rows\nof %s", 3, "Zürich", extra={"duration_ms": 1.5, "colour": "red"})
    (line,) = told(written)

    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "INFO",
        "logger": "launcher.test",
        "message": "3 rows\nof Zürich",
        "job_id": "batch-1",
        "tenant": "acme",
        "attempt": 2,
        "duration_ms": 1.5,
    }
    assert written.getvalue().count("\n") == 1


def test_what_a_record_brings_comes_before_what_all_have(log: logging.Logger, written: io.StringIO) -> None:
    log.info("moved", extra={"job_id": "batch-2", "attempt": None})
    (line,) = told(written)

    assert (line["job_id"], line["attempt"]) == ("batch-2", 2)


def test_a_traceback_is_on_the_same_line(log: logging.Logger, written: io.StringIO) -> None:
    try:
        fail_of("no")
    except KeyError:
        log.exception("broke")
    (line,) = told(written)

    assert line["exception"].splitlines()[-1] == "KeyError: 'the step failed'"
    assert "ValueError: no" in line["exception"]


def test_no_secret_is_in_message_traceback_or_extra(
    log: logging.Logger, handler: logging.Handler, written: io.StringIO
) -> None:
    masking(handler, URI)
    try:
        fail_of(f"cannot connect to {URI}")
    except KeyError:
        log.exception("with %s", SECRET, extra={"path": f"/{SECRET}"})
    (line,) = told(written)

    assert SECRET not in written.getvalue()
    assert line["message"] == "with *****"
    assert line["path"] == "/*****"
    assert "cannot connect to postgresql://penstock:*****@db.example.com/sales" in line["exception"]
    # What holds no secret stays as it is, indented.
    assert '\n  File "' in line["exception"]


@pytest.mark.parametrize(
    ("password", "typed"),
    [
        pytest.param('p"a\\ss', "p%22a%5Css", id="what JSON writes otherwise"),
        pytest.param("2", "2", id="a number that stands in the line"),
        pytest.param("Grüße-größer", "Gr%C3%BC%C3%9Fe-gr%C3%B6%C3%9Fer", id="letters beyond ASCII"),
        pytest.param("INFO", "INFO", id="a word of ours"),
    ],
)
def test_whatever_the_secret_is_the_line_stays_json_without_it(
    log: logging.Logger, handler: logging.Handler, written: io.StringIO, password: str, typed: str
) -> None:
    masking(handler, f"postgresql://penstock:{typed}@db/sales")
    log.warning("no entry with %s", password, extra={"status_code": 422})
    (line,) = told(written)

    assert line["message"] == "no entry with *****"
    assert (line["attempt"], line["status_code"]) == (2, 422)


def test_plain_lines_are_masked_each_by_itself(written: io.StringIO) -> None:
    formatter = MaskingFormatter(logging.Formatter("%(levelname)s %(message)s"), [Connection(URI)])
    record = logging.LogRecord("x", logging.ERROR, "f.py", 1, "one  two\n   with %s", (SECRET,), None)

    assert formatter.format(record) == "ERROR one  two\nwith *****"


def test_text_is_masked_for_every_connection() -> None:
    other = Connection("postgresql://other:0ther-w0rd@db/sales")
    text = f"first\n  {SECRET} and   0ther-w0rd"

    assert masked(text, [Connection(URI), other]) == "first ***** and *****"
    assert masked(text, []) == f"first {SECRET} and 0ther-w0rd"
    assert masked_lines(text, [Connection(URI), other]) == "first\n***** and *****"
    assert masked_lines(text, []) == text


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (
            '{"time": "2025-03-15T10:00:00Z", "level": "INFO", "logger": "launcher", "message": "é is running"}',
            "2025-03-15T10:00:00Z INFO launcher: é is running",
        ),
        (
            '{"time": "T", "level": "ERROR", "logger": "a.b", "message": "lost", "exception": "Traceback\\n  x"}',
            "T ERROR a.b: lost\nTraceback\n  x",
        ),
        ("what a model printed", "what a model printed"),
        ('{"a": 1}', '{"a": 1}'),
        ("[1, 2]", "[1, 2]"),
        ("7", "7"),
    ],
    ids=["a line", "a traceback", "text", "other JSON", "a list", "a number"],
)
def test_a_line_of_a_service_is_text_for_people(line: str, text: str) -> None:
    assert text_line(line) == text
