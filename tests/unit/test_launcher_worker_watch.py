"""What ends a job's process before it is done: a signal, its deadline, its memory, or a call."""

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import psutil
import pytest

from launcher.state.job import Job
from launcher.worker.memory import GB, resident_bytes
from launcher.worker.watch import End, Watch
from pipelines.spec import Config
from predictors.pressure import PRESSURE
from tests.contract.job_store import queued
from tests.unit.launcher_parts import PATIENCE_S, until

STOP = End("cancelled", "cancelled on request")


@pytest.fixture(autouse=True)
def _no_pressure() -> Iterator[None]:
    PRESSURE.reset()
    yield
    PRESSURE.reset()


def awaited(watch: Watch) -> "Future[End]":
    ended: Future[End] = Future()

    def run() -> None:
        try:
            ended.set_result(watch.await_end())
        except BaseException as error:
            ended.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return ended


def job_until(deadline: datetime | None) -> Job:
    return replace(queued("batch-1"), status="running", deadline_at=deadline)


def watch(config: Config = Config(), deadline: datetime | None = None) -> Watch:
    return Watch(config, lambda: job_until(deadline))


def share_of_memory(share: float) -> Config:
    """A bound of which so much is in use."""
    return Config(max_memory_gb=resident_bytes(psutil.Process()) / GB / share)


def test_whoever_calls_ends_it_and_the_first_counts() -> None:
    watched = watch()
    ended = awaited(watched)
    watched.end(STOP)
    watched.end(End("failed", "too late"))

    assert ended.result(PATIENCE_S) == STOP


def test_a_call_that_came_before_is_heard() -> None:
    watched = watch()
    watched.end(STOP)

    assert awaited(watched).result(PATIENCE_S) == STOP


def test_the_deadline_ends_it() -> None:
    ended = awaited(watch(Config(timeout_minutes=0.5), datetime.now(UTC) + timedelta(seconds=0.1)))

    assert ended.result(PATIENCE_S) == End("failed", "timed out after config.timeout_minutes 0.5", "timed_out")


def test_a_deadline_that_is_over_ends_it_at_once() -> None:
    ended = awaited(watch(deadline=datetime.now(UTC) - timedelta(days=1)))

    assert ended.result(PATIENCE_S).outcome == "timed_out"


def test_a_deadline_that_comes_to_be_known_later_ends_it() -> None:
    deadline: list[datetime | None] = [None]
    watched = Watch(Config(), lambda: job_until(deadline[0]))
    ended = awaited(watched)
    deadline[0] = datetime.now(UTC)

    assert ended.result(PATIENCE_S).outcome == "timed_out"


def test_too_much_memory_ends_it_and_says_how_much() -> None:
    end = awaited(watch(share_of_memory(1.5))).result(PATIENCE_S)

    assert (end.to, end.outcome) == ("failed", "out_of_memory")
    assert end.why.startswith("out of memory: ")
    assert " GB are in use, and config.max_memory_gb is " in end.why
    assert end.why.endswith("; lower config.parallelism or config.batch_size, or raise config.max_memory_gb")


def test_memory_that_is_nearly_used_up_is_told_to_those_who_score() -> None:
    watched = watch(share_of_memory(0.95))
    ended = awaited(watched)
    until(lambda: PRESSURE.is_high)
    watched.end(STOP)

    assert ended.result(PATIENCE_S) == STOP
    assert PRESSURE.episodes == 1


def test_memory_that_is_given_back_ends_the_pressure() -> None:
    PRESSURE.raise_level()
    watched = watch(share_of_memory(0.5))
    ended = awaited(watched)
    until(lambda: not PRESSURE.is_high)
    watched.end(STOP)

    assert ended.result(PATIENCE_S) == STOP


@pytest.fixture
def _own_signals() -> Iterator[None]:
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    wakeup = signal.set_wakeup_fd(-1)
    yield
    signal.set_wakeup_fd(wakeup)
    for number, handler in kept.items():
        signal.signal(number, handler)
        signal.siginterrupt(number, True)


@pytest.mark.usefixtures("_own_signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_cancels_it(number: signal.Signals) -> None:
    watched = watch()
    watched.listen()
    ended = awaited(watched)
    os.kill(os.getpid(), number)

    assert ended.result(PATIENCE_S) == End("cancelled", f"cancelled by {number.name}")


@pytest.mark.usefixtures("_own_signals")
def test_another_signal_is_none_of_its_business() -> None:
    watched = watch()
    watched.listen()
    heard = threading.Event()
    before = signal.signal(signal.SIGUSR1, lambda *_: heard.set())
    try:
        ended = awaited(watched)
        os.kill(os.getpid(), signal.SIGUSR1)
        assert heard.wait(PATIENCE_S)
        watched.end(STOP)

        assert ended.result(PATIENCE_S) == STOP
    finally:
        signal.signal(signal.SIGUSR1, before)
