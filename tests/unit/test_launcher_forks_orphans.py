"""What forks leave behind: it ends with them, however they ended."""

import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from launcher.forks.forking import Child, ForkServer, Task
from tests.unit.launcher_parts import until, warm_forks


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    with warm_forks(tmp_path_factory.mktemp("forks"), "tests.unit.orphans") as server:
        yield server


def leave(forks: ForkServer, folder: Path, name: str, *fds: int) -> tuple[Child, int]:
    """Fork a process that leaves a daemon; returns both."""
    to = folder / name
    child = forks.fork(Task("tests.unit.orphans:leave", {"to": str(to)}, str(folder), {}, None), fds)
    return child, int(until(lambda: to.exists() and to.read_text()))


def test_what_a_fork_leaves_goes_with_it_and_stays_as_long_as_it(forks: ForkServer, tmp_path: Path) -> None:
    end, other_end = os.pipe()
    try:
        killed, its_daemon = leave(forks, tmp_path, "first", end)
        _, other_daemon = leave(forks, tmp_path, "second")
        until(lambda: not psutil.pid_exists(other_daemon))
        stays = psutil.pid_exists(its_daemon)
        os.kill(killed.pid, 9)
        until(lambda: not psutil.pid_exists(its_daemon))

        # The end of one fork is not the end of what another has started.
        assert stays
    finally:
        os.close(other_end)
        os.close(end)
