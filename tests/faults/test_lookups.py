"""A job of a service whose hosts nobody can name yet: it starts as soon as they are known, or goes to its queue."""

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from launcher import service as services
from launcher.state.job import Job
from tests.faults.launchers import until
from tests.faults.managed import PATIENCE_S, Desk, Launcher, doubled, numbers

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    # A service that looks for jobs only when it is told to.
    monkeypatch.setattr(services, "_DISPATCH_EVERY_S", 3600.0)
    launcher = Launcher(tmp_path / "home", tmp_path, {})
    desk = Desk(launcher, "default", tmp_path / "data", tmp_path / "models")
    desk.write(numbers(100))
    yield desk
    desk.tidy()
    launcher.stop()


@pytest.fixture
def known(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Until it is set, no host is known."""
    known = threading.Event()

    def connections_of(job: Job) -> Mapping[str, str]:
        assert known.wait(PATIENCE_S)
        return {}

    monkeypatch.setattr(desk.service.dispatcher, "_connections_of", connections_of)
    # So it is no matter of the tick that claims the job, and the next one is told to come.
    monkeypatch.setattr(desk.service.dispatcher, "_lookup_s", 0.0)
    yield known
    known.set()


def looked_up(desk: Desk) -> Job:
    """A job that waits for its hosts."""
    job = desk.submit("Recorded")
    until(lambda: len(desk.service.dispatcher._looked_up) == 1, PATIENCE_S, "the lookup")
    return job


def test_a_job_starts_once_its_hosts_are_known(desk: Desk, known: threading.Event) -> None:
    job = looked_up(desk)
    assert desk.job(job).pid is None
    known.set()

    desk.completed(job)
    assert desk.result() == doubled(range(100))


def test_a_service_that_is_stopped_puts_it_back_for_the_next(desk: Desk, known: threading.Event) -> None:
    job = looked_up(desk)
    desk.launcher.stop()
    desk.launcher.start()

    waiting = desk.job(job)
    assert (waiting.status, waiting.retries) == ("submitted", 0)
    assert desk.moves(job)[-1].reason == "its launcher was stopped, again in 0.0 s"
    desk.service.wake()
    assert desk.completed(job).attempt == 2
