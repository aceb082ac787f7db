"""What happens when a model call fails: wait, halve or bisect. Pure: no Beam, no pool, no clock of its own.

A call scores the rows `start` to `stop` of one span and either answers for all of them or raises. `score_rows` turns
such calls, some of which fail, into answers and rejected rows; every row ends in exactly one of both.
"""

import errno
import itertools
import random
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

from predictors.blame import place_in
from predictors.errors import (
    ModelNotLoadable,
    NothingScored,
    OutOfMemory,
    RowsRejected,
    SchemaMismatch,
    Transient,
    WrongAnswer,
)
from predictors.pressure import Pressure

Answer = TypeVar("Answer")
Kind = Literal["transient", "out_of_memory", "rows", "bad_data", "fatal"]

# How frameworks word a failed allocation; their exceptions have no class of their own to tell it by.
_ALLOCATION_FAILED = (
    "out of memory",  # CUDA, ROCm and MPS of PyTorch, "CUDA failure 2" of ONNX Runtime, XGBoost, JAX
    "failed to allocate memory",  # the arena of ONNX Runtime
    "bad_alloc",  # C++ as such: ONNX Runtime without its arena, XGBoost, LightGBM
    "bad allocation",  # the same on Windows
    "available memory of",  # ONNX Runtime: "... is smaller than requested bytes of"
    "failed to allocate output tensor",  # ONNX Runtime, OneHot
    "exceeds the supported maximum of",  # ONNX Runtime, Tile: an output beyond 4 GiB
    "_status_alloc_failed",  # cuBLAS and cuDNN
    "t allocate memory",  # PyTorch on the CPU ("can't"), the C library ("cannot")
    "oom when allocating",  # TensorFlow
    "resource_exhausted",  # JAX and TensorFlow
)
# What requests, urllib3, httpx, aiohttp, botocore, redis and the clients of model services raise, or a base of it. None
# descends from Python's own ConnectionError or TimeoutError; they are known by name, so that none need be imported.
_CONNECTION_FAILED = frozenset(
    {
        "APIConnectionError",
        "ClientConnectionError",
        "ConnectionError",
        "MaxRetryError",
        "NewConnectionError",
        "Timeout",
        "TimeoutError",
        "TransportError",
    }
)
# Python's own errors of values: their text may hold any words that a row holds.
_MAY_QUOTE_ROWS = frozenset({ValueError, TypeError, KeyError, IndexError, UnicodeDecodeError, UnicodeEncodeError})
# The network's own words, where no connection was made yet.
_NETWORK_DOWN = frozenset({errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH})
# HTTP (RFC 9110): request timeout, too many requests, and what a server says when the fault is its own.
_BUSY = frozenset({408, 429, 500, 502, 503, 504})
# Calls that must pass at a remembered size before a size twice as large is tried.
_CALLS_BEFORE_GROWING = 64


@dataclass(frozen=True)
class RetryPolicy:
    """Bounds of the recovery.

    Args:
        retry_count: how often a call that failed in passing is repeated; 0 means a single try.
        first_wait_s, longest_wait_s: exponential backoff between the tries; each wait is drawn from its upper half.
        bad_rows_per_batch: once a batch has shown more bad rows than this, its unscored rest is rejected whole, so
            that a column gone wrong costs a few hundred calls a batch and not thousands. Rows that the model names
            together in one `RowsRejected` count as one.
    """

    retry_count: int = 3
    first_wait_s: float = 0.5
    longest_wait_s: float = 30.0
    bad_rows_per_batch: int = 32


@dataclass(frozen=True)
class BadRow:
    """A row that the model cannot score: its index in the span, the class of the failure and its text."""

    row: int
    error_type: str
    error: str


@dataclass
class Scores(Generic[Answer]):
    """What came of a span's calls.

    Args:
        answers: (start, stop, answer), ascending and disjoint.
        bad: the other rows, ascending.
        calls: how often the model was called.
    """

    answers: list[tuple[int, int, Answer]] = field(default_factory=list)
    bad: list[BadRow] = field(default_factory=list)
    calls: int = 0


def kind_of(error: Exception) -> Kind:
    """Which of the policies answers `error`.

    Transient: `Transient`, a connection or a timeout, Python's own or a client library's, and HTTP 408, 429 and 5xx.
    Out of memory: `OutOfMemory`, `MemoryError`, and what frameworks say when an allocation fails. Fatal: a model that
    breaks its contract. All else is bad data.
    """
    match error:
        case Transient():
            return "transient"
        case OutOfMemory() | MemoryError() | OSError(errno=errno.ENOMEM):
            return "out_of_memory"
        case RowsRejected():
            return "rows"
        case WrongAnswer() | SchemaMismatch() | ModelNotLoadable() | NothingScored():
            return "fatal"
    if _is_passing(error):
        return "transient"
    if type(error) in _MAY_QUOTE_ROWS:
        return "bad_data"
    text = str(error).lower()
    return "out_of_memory" if any(words in text for words in _ALLOCATION_FAILED) else "bad_data"


def _is_passing(error: Exception) -> bool:
    """Whether a service or the network failed, by what client libraries tell of it."""
    reason = getattr(error, "reason", None)  # urllib's URLError wraps what happened
    for failure in (error, reason):
        if isinstance(failure, ConnectionError | TimeoutError | socket.gaierror):
            return True
        if isinstance(failure, OSError) and failure.errno in _NETWORK_DOWN:
            return True
    return _http_status(error) in _BUSY or any(cls.__name__ in _CONNECTION_FAILED for cls in type(error).__mro__)


def _http_status(error: Exception) -> int | None:
    """What a service answered: requests and httpx keep it in the response, urllib and aiohttp in the error."""
    for holder in (getattr(error, "response", None), error):
        for name in ("status_code", "status", "code"):
            status = getattr(holder, name, None)
            if isinstance(status, int):
                return status
    return None


class CallSize:
    """The largest call that is known to fit, shared by all threads that call one model on one device.

    Starts at `batch_size`, halves when a call runs out of memory or the pressure rises, and doubles again, up to
    `batch_size`, each time a run of calls has passed while the pressure is not high.

    Args:
        batch_size: rows of a call when there is memory enough.
        pressure: of the process; None: it never rises.
    """

    def __init__(self, batch_size: int, pressure: Pressure | None = None) -> None:
        self._batch_size = batch_size
        self._fits = batch_size
        self._passed = 0
        self._pressure = pressure or Pressure()
        # Rises before this model was there did not come of its calls.
        self._episodes = self._pressure.episodes
        self._lock = threading.Lock()

    @property
    def rows(self) -> int:
        """Rows that the next call may have."""
        if self._pressure.episodes != self._episodes:
            self.heed()
        return self._fits

    def heed(self) -> None:
        """Halve once for each time that the pressure rose, however many threads notice."""
        with self._lock:
            episodes = self._pressure.episodes
            for _ in range(episodes - self._episodes):
                self._fits, self._passed = max(self._fits // 2, 1), 0
            self._episodes = episodes

    def passed(self, rows: int) -> None:
        """A call of `rows` rows was answered."""
        if self._fits == self._batch_size or self._pressure.is_high:
            return
        with self._lock:
            if rows >= self._fits:
                self._passed += 1
            if self._passed >= _CALLS_BEFORE_GROWING:
                self._fits, self._passed = min(self._fits * 2, self._batch_size), 0

    def ran_out(self, rows: int) -> int:
        """A call of `rows` rows ran out of memory: remember a half of it, and return the size to go on with."""
        with self._lock:
            self._fits, self._passed = min(self._fits, max(rows // 2, 1)), 0
            return self._fits


@dataclass(frozen=True)
class _Failed:
    """A call that was not answered because of its rows."""

    start: int
    stop: int
    error: Exception


@dataclass(frozen=True)
class Recovery:
    """The failure policy around one model.

    Args:
        policy: its bounds.
        size: what fits, shared between threads.
        wait: sleeps for that many seconds; may raise to give up.
        draw: a number from 0 to 1, for the jitter.
        saw: told after each batch how many of its rows were scored and which were bad; may raise to give up.
    """

    policy: RetryPolicy
    size: CallSize
    wait: Callable[[float], object]
    draw: Callable[[], float] = random.random
    saw: Callable[[int, Sequence[BadRow]], object] = lambda scored, bad: None

    def score_rows(self, call: Callable[[int, int], Answer], rows: int, batch_size: int) -> Scores[Answer]:
        """Score `rows` rows in calls of `batch_size`, the last one shorter, and recover from what fails.

        Args:
            call: scores the rows from its first to before its second argument, or raises.

        Raises:
            Exception: the failure itself, when it stays after all tries, when a single row does not fit into memory,
                or when the model breaks its contract.
        """
        scores: Scores[Answer] = Scores()
        for start in range(0, rows, batch_size):
            stop, before = min(start + batch_size, rows), len(scores.bad)
            failed = self._answer(call, start, stop, scores)
            if failed is not None:
                self._set_bad_apart(call, failed, stop, scores)
            bad = scores.bad[before:]
            self.saw(stop - start - len(bad), bad)
        return scores

    def _answer(
        self, call: Callable[[int, int], Answer], start: int, stop: int, scores: Scores[Answer]
    ) -> _Failed | None:
        """Score a range, in pieces where memory demands it, up to the first piece that its rows make fail."""
        at, tries = start, 0
        while at < stop:
            upto = min(at + self.size.rows, stop)
            scores.calls += 1
            try:
                answer = call(at, upto)
            except Exception as error:
                match kind_of(error):
                    case "transient" if tries < self.policy.retry_count:
                        self._back_off(tries)
                        tries += 1
                    case "out_of_memory" if upto - at > 1:
                        self.size.ran_out(upto - at)
                        tries = 0
                    case "bad_data" | "rows":
                        return _Failed(at, upto, error)
                    case _:
                        raise
            else:
                scores.answers.append((at, upto, answer))
                self.size.passed(upto - at)
                at, tries = upto, 0
        return None

    def _back_off(self, tries: int) -> None:
        longest = min(self.policy.first_wait_s * 2**tries, self.policy.longest_wait_s)
        self.wait(longest * (1 + self.draw()) / 2)

    def _set_bad_apart(
        self, call: Callable[[int, int], Answer], failed: _Failed | None, stop: int, scores: Scores[Answer]
    ) -> None:
        """Score a batch from a failed call on; each row that its model cannot score is isolated, and the rest taken as
        one group again.

        For k bad rows of n that makes k * (ceil(log2 n) + 1) + 1 calls at most, the first one counted.
        """
        before, found = len(scores.bad), 0
        # Ranges that are neither scored nor rejected, the first of them last.
        todo: list[tuple[int, int]] = []
        end = stop
        while failed is not None or todo:
            if failed is None:
                at, end = todo.pop()
                failed = self._answer(call, at, end, scores)
                continue
            if found >= self.policy.bad_rows_per_batch:
                rest = [(failed.start, end), *todo]
                scores.bad += _reject_whole(failed.error, rest, len(scores.bad) - before)
                break
            if isinstance(failed.error, RowsRejected):
                named = _named(failed, failed.error)
                scores.bad += named
                found += 1
                todo.append((failed.stop, end))
                todo += reversed(_between(failed, named))
            else:
                row, bad = self._isolate_first(call, failed, scores)
                if bad is not None:
                    scores.bad.append(bad)
                    found += 1
                todo.append((row + 1, end))
            failed = None
        scores.bad[before:] = sorted(scores.bad[before:], key=lambda bad: bad.row)

    def _isolate_first(
        self, call: Callable[[int, int], Answer], failed: _Failed, scores: Scores[Answer]
    ) -> tuple[int, BadRow | None]:
        """Find the first bad row of a call that failed, by halving; what lies before it is scored on the way.

        A row is known to be bad from a failed call of it alone, or because all before it in a failed call passed. In
        the second case, when nothing but that first failure speaks against it, it is called alone: the failure may not
        have been of any row.

        Returns:
            The row, and what is wrong with it, None when it was scored in the end; those behind it are open.
        """
        start, end, whole = failed.start, failed.stop, failed.stop
        while end - start > 1:
            middle = (start + end) // 2
            inner = self._answer(call, start, middle, scores)
            if inner is None:
                start = middle
            else:
                failed, start, end = inner, inner.start, inner.stop
        if end == whole and failed.start != start:
            alone = self._answer(call, start, end, scores)
            if alone is None:
                return start, None
            failed = alone
        return start, BadRow(start, type(failed.error).__name__, text_of(failed.error))


def _named(failed: _Failed, error: RowsRejected) -> list[BadRow]:
    """The rows that the model itself named.

    Raises:
        WrongAnswer: none, or one that was not in the call.
    """
    rows = sorted({failed.start + row for row in error.rows})
    if not rows or rows[0] < failed.start or rows[-1] >= failed.stop:
        raise WrongAnswer(
            f"the model refused rows {list(error.rows)} of a call of {failed.stop - failed.start}"
        ) from error
    return [BadRow(row, type(error).__name__, text_of(error)) for row in rows]


def _between(failed: _Failed, named: Sequence[BadRow]) -> list[tuple[int, int]]:
    """The ranges of a call that lie before, between and behind the rows that were named."""
    edges = [failed.start - 1, *(bad.row for bad in named), failed.stop]
    return [(before + 1, row) for before, row in itertools.pairwise(edges) if row > before + 1]


def _reject_whole(error: Exception, ranges: Sequence[tuple[int, int]], found: int) -> list[BadRow]:
    """The rest of a batch that has shown too many bad rows."""
    rest = [row for start, stop in ranges for row in range(start, stop)]
    # Under a name of their own: they are good, as far as anybody knows.
    reason = f"not scored, as {found} rows of its batch are bad; the last of them: {text_of(error)}"
    return [BadRow(row, "NotScored", reason) for row in rest]


def text_of(error: BaseException) -> str:
    """The error's text on one line, shortened; its class where it has none; its place in a user's code where known."""
    # A path in the text may hold bytes that are no text, which no column can hold.
    text = " ".join(str(error).encode(errors="replace").decode().split())
    # An error of a tensor library may print a whole tensor; the beginning says what happened.
    text = (text if len(text) <= 500 else text[:499] + "…") or type(error).__name__
    place = place_in(error)
    return f"{text} ({place})" if place else text
