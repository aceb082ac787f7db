"""Reading goes ahead of those who ask, no further than agreed, and skips what is noted."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest

from predictors.pressure import PRESSURE
from tests.scenes import numbered_rows, scene
from transforms import read
from transforms.batches import Batch, Span, Split
from transforms.ledger import Note
from transforms.read import _ahead, read_unnoted

SPLIT = Split("000000", "a", 0, None, 1, "")


def batches(count: int, pulled: list[int]) -> Iterator[Batch]:
    for i in range(count):
        pulled.append(i)
        yield Batch(Span(SPLIT, i, i + 1, last=False), pa.record_batch({"i": [i]}))


@pytest.fixture
def pressure() -> Iterator[None]:
    """High, until the test ends."""
    PRESSURE.reset()
    PRESSURE.raise_level()
    yield
    PRESSURE.reset()


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "read"]


def test_batches_come_in_order() -> None:
    assert [batch.span.start for batch, _ in _ahead(batches(100, []))] == list(range(100))


def test_no_more_is_read_ahead_than_agreed() -> None:
    pulled: list[int] = []
    reading = _ahead(batches(100, pulled))

    for asked in range(1, 90):
        next(reading)
        # Those that were asked for, those that lie ready, and the one in hand.
        assert len(pulled) <= asked + read._AHEAD + 1
    reading.close()


def test_closing_ends_the_thread() -> None:
    reading = _ahead(batches(100, []))
    next(reading)

    reading.close()

    assert readers() == []


def test_an_error_comes_where_the_batch_would_have_come() -> None:
    def failing() -> Iterator[Batch]:
        yield from batches(2, [])
        raise OSError("the disk is gone")

    reading = _ahead(failing())

    assert [next(reading)[0].span.start, next(reading)[0].span.start] == [0, 1]
    with pytest.raises(OSError, match="the disk is gone"):
        next(reading)
    assert readers() == []


@pytest.mark.usefixtures("pressure")
def test_while_memory_is_short_a_batch_is_read_only_when_it_is_waited_for() -> None:
    pulled: list[int] = []
    reading = _ahead(batches(30, pulled))

    for asked in range(1, 31):
        assert next(reading)[0].span.start == asked - 1
        # One more, where the batch came just as somebody began to wait for it.
        assert len(pulled) <= asked + 1
    assert list(reading) == []
    assert readers() == []


@pytest.mark.usefixtures("pressure")
def test_what_was_read_before_memory_became_short_still_comes_and_nothing_more_until_it_has() -> None:
    PRESSURE.clear()
    pulled: list[int] = []
    reading = _ahead(batches(30, pulled))
    next(reading)
    await_that(lambda: len(pulled) == read._AHEAD + 2)
    PRESSURE.raise_level()
    for _ in range(read._AHEAD + 1):
        next(reading)

    assert len(pulled) <= read._AHEAD + 3
    PRESSURE.clear()
    assert len(list(reading)) == 30 - read._AHEAD - 2


@pytest.mark.usefixtures("pressure")
def test_reading_ahead_goes_on_by_itself_once_there_is_room() -> None:
    pulled: list[int] = []
    reading = _ahead(batches(30, pulled))
    next(reading)

    PRESSURE.clear()

    await_that(lambda: len(pulled) == read._AHEAD + 2)
    reading.close()


@pytest.mark.usefixtures("pressure")
def test_closing_ends_a_thread_that_holds_back() -> None:
    pulled: list[int] = []
    reading = _ahead(batches(30, pulled))
    next(reading)

    reading.close()

    assert readers() == []
    assert len(pulled) <= 3


@pytest.mark.usefixtures("pressure")
def test_an_error_comes_while_memory_is_short() -> None:
    def failing() -> Iterator[Batch]:
        yield from batches(1, [])
        raise OSError("the disk is gone")

    reading = _ahead(failing())
    next(reading)

    with pytest.raises(OSError, match="the disk is gone"):
        next(reading)


def await_that(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)


@dataclass
class Noted:
    """A ledger that has some spans."""

    spans: list[tuple[int, int]]

    def noted(self, split_id: str) -> list[Note]:
        return [Note(split_id, a, b, b == 100, b - a, 0, 0, "p", None) for a, b in self.spans]

    def all_notes(self) -> list[Note]:
        return []


@pytest.mark.parametrize(
    ("noted", "expected"),
    [
        pytest.param([], [0, 30, 60, 90], id="nothing noted"),
        pytest.param([(0, 30)], [30, 60, 90], id="the beginning"),
        pytest.param([(30, 60), (90, 100)], [0, 60], id="holes"),
        pytest.param([(0, 30), (30, 60), (60, 90), (90, 100)], [], id="all"),
    ],
)
def test_noted_spans_are_not_read_again(tmp_path: Path, noted: list[tuple[int, int]], expected: list[int]) -> None:
    small = scene(tmp_path, numbered_rows(300))

    spans = list(read_unnoted(small.source, Noted(noted), small.splits[0], ("id",)))

    assert [batch.span.start for batch in spans] == expected
