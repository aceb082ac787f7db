"""A model in a process of its own, which may die of it.

The process is started anew and not forked: the one that starts it has threads of all kinds. It loads the model, takes
spans over a socket, and answers for one range of rows after the other, so that it is known how far it was.
"""

import contextlib
import ctypes
import faulthandler
import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import pyarrow as pa

from predictors.base import Nulls, Predictor
from predictors.errors import ModelCrashed, PredictorError
from predictors.pool.base import Answers
from predictors.pool.inline import InlinePool
from predictors.recovery import RetryPolicy, text_of

# Not `-m`: what it sends must not be of a module `__main__`.
_COMMAND = "import sys; from predictors.pool.child import main; main(int(sys.argv[1]))"
# prctl(2): the signal that comes when the parent is gone.
_PR_SET_PDEATHSIG = 1
# Of all processes of a job this one is the first that has to go when the machine is out of memory: proc(5).
_OOM_SCORE = "500"
# A process whose socket is closed is about to end.
_ENDING_S = 10.0


class ChildDied(Exception):
    """The process died over a range of rows; the text says how."""


@dataclass(frozen=True)
class ChildSetup:
    """All that the process needs.

    Args:
        predictor: not loaded.
        batch_size, nulls, retry_count: as for a pool.
    """

    predictor: Predictor
    batch_size: int
    nulls: Nulls
    retry_count: int


@dataclass(frozen=True)
class RangeAnswers:
    """What was said to a range of rows, and how long each model call took."""

    answers: Answers
    calls_s: tuple[float, ...]


class Child:
    """One such process. Used by one thread.

    Raises:
        ModelCrashed: it died while it loaded the model.
        PredictorError: the model does not load.
    """

    def __init__(self, setup: ChildSetup) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _COMMAND, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        self._connection = Connection(ours.detach())
        try:
            predictor = pickle.dumps((setup.predictor, setup.batch_size, setup.nulls, setup.retry_count))
            self._connection.send_bytes(pickle.dumps((list(sys.path), predictor)))
            self.output_schema: pa.Schema = self._receive()
        except ChildDied as died:
            raise ModelCrashed(f"the model crashed while it was loaded in a process of its own ({died})") from died
        except OSError as error:
            raise ModelCrashed(
                f"the model crashed while it was loaded in a process of its own ({self._end()})"
            ) from error

    def score(self, rows: pa.RecordBatch, ranges: Sequence[tuple[int, int]]) -> Iterator[RangeAnswers]:
        """The answers to each of `ranges`, in their order, as soon as there is one.

        Raises:
            ChildDied: over the first range that was not answered. The process is of no use any more.
            Exception: what ends the job, as of a pool's future.
        """
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, rows.schema) as writer:
            writer.write_batch(rows)
        try:
            self._connection.send_bytes(pickle.dumps(list(ranges)))
            self._connection.send_bytes(sink.getvalue())
        except OSError:
            raise ChildDied(self._end()) from None
        for _ in ranges:
            yield self._receive()

    def close(self) -> None:
        """End the process."""
        self._connection.close()
        self._process.kill()
        self._process.wait()

    def _receive(self) -> Any:
        try:
            message = pickle.loads(self._connection.recv_bytes())
        except (EOFError, OSError):
            raise ChildDied(self._end()) from None
        if isinstance(message, Exception):
            raise message
        return message

    def _end(self) -> str:
        """How the process ended, which is about to."""
        try:
            code = self._process.wait(_ENDING_S)
        except subprocess.TimeoutExpired:
            self.close()
            return "it closed its socket"
        self._connection.close()
        if code >= 0:
            return f"exit code {code}"
        try:
            return signal.Signals(-code).name
        except ValueError:
            return f"signal {-code}"


def _serve(connection: Connection) -> None:
    """Load, then answer until the other end is closed."""
    path, setup = pickle.loads(connection.recv_bytes())
    # Where the user's own modules are, too.
    sys.path[:] = path
    calls_s: list[float] = []
    try:
        predictor, batch_size, nulls, retry_count = pickle.loads(setup)
        pool = InlinePool(
            predictor,
            parallelism=1,
            batch_size=batch_size,
            nulls=nulls,
            policy=RetryPolicy(retry_count),
            on_trial=False,
            called=calls_s.append,
        )
    except Exception as error:
        connection.send_bytes(_pickled(error))
        return
    connection.send_bytes(pickle.dumps(predictor.output_schema))
    while True:
        ranges = pickle.loads(connection.recv_bytes())
        with pa.ipc.open_stream(connection.recv_bytes()) as reader:
            rows = reader.read_next_batch()
        for start, stop in ranges:
            calls_s.clear()
            try:
                answers = pool.submit(rows.slice(start, stop - start)).result()
            except Exception as error:
                connection.send_bytes(_pickled(error))
                break
            connection.send_bytes(pickle.dumps(RangeAnswers(answers, tuple(calls_s))))


def _pickled(error: Exception) -> bytes:
    """An error as it travels; one that cannot is told by its class and text."""
    try:
        pickled = pickle.dumps(error)
        pickle.loads(pickled)
    except Exception:
        return pickle.dumps(PredictorError(f"{type(error).__name__}: {text_of(error)}"))
    return pickled


def main(fd: int) -> None:
    """Serve until the parent is gone."""
    os.set_inheritable(fd, False)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:
        score.write(_OOM_SCORE)
    faulthandler.enable()
    with contextlib.suppress(EOFError, ConnectionError):
        _serve(Connection(fd))
