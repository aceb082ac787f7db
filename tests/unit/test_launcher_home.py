"""PENSTOCK_HOME and the locks in it."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from launcher.errors import HomeUnusable, JobAlive
from launcher.home import RESERVE_BYTES, Home, JobFolder, JobLock

ROOT = Path(__file__).parents[2]
# Takes the lock, says so, and holds it until it is killed; its child, started without the lock, lives on.
HOLD = """
import subprocess, sys, time
from pathlib import Path
from launcher.home import JobFolder
lock = JobFolder(Path(sys.argv[1])).lock("batch-1")
child = subprocess.Popen(["sleep", "600"], close_fds=False, stdout=subprocess.DEVNULL)
print(child.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def folder(tmp_path: Path) -> JobFolder:
    folder = JobFolder(tmp_path / "batch-1")
    folder.create()
    return folder


def test_the_lock_dies_with_its_process_and_is_not_passed_to_children(folder: JobFolder) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder.path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    child = int(holder.stdout.readline())
    alive = folder.is_alive()
    with pytest.raises(JobAlive, match=r"batch-1 is still running \(pid 17\)"):
        folder.lock("batch-1", 17)
    holder.kill()
    holder.communicate()
    after = folder.is_alive()
    os.kill(child, signal.SIGKILL)

    assert (alive, after) == (True, False)
    folder.lock("batch-1").release()


def test_a_lock_can_be_handed_to_another_process(folder: JobFolder) -> None:
    lock = folder.lock("batch-1")
    heir = subprocess.Popen(["sleep", "600"], pass_fds=[lock.fd])
    lock.release()
    alive = folder.is_alive()
    heir.kill()
    heir.wait()

    assert (alive, folder.is_alive()) == (True, False)


def test_an_adopted_lock_is_held_and_not_inherited(folder: JobFolder) -> None:
    lock = folder.lock("batch-1")
    os.set_inheritable(lock.fd, True)
    adopted = JobLock.adopt(lock.fd)

    assert not os.get_inheritable(adopted.fd)
    assert folder.is_alive()
    adopted.release()
    assert not folder.is_alive()


def test_a_starting_job_is_named_without_a_pid(folder: JobFolder) -> None:
    lock = folder.lock("batch-1")

    with pytest.raises(JobAlive, match=r"batch-1 is still running \(starting\)"):
        folder.lock("batch-1")
    lock.release()


def test_a_folder_that_is_not_there_is_not_alive(tmp_path: Path) -> None:
    assert not JobFolder(tmp_path / "none").is_alive()


def test_folders_are_closed_to_others_and_room_is_reserved(tmp_path: Path) -> None:
    home = Home(tmp_path / "a" / "home")
    home.create()
    home.create()
    folder = home.job("batch-1")
    folder.create()
    folder.create()

    assert [oct(path.stat().st_mode & 0o777) for path in (home.path, home.jobs, folder.path)] == ["0o700"] * 3
    assert folder.reserve.stat().st_size == RESERVE_BYTES
    folder.give_up_reserve()
    folder.give_up_reserve()
    assert not folder.reserve.exists()
    folder.delete()
    folder.delete()
    assert not folder.path.exists()


def test_the_home_is_what_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("PENSTOCK_HOME", "jobs")
    named = Home.from_environment()
    monkeypatch.delenv("PENSTOCK_HOME")

    assert named.path == tmp_path / "jobs"
    assert Home.from_environment().path == Path("/home/me/.penstock")
    assert (named.store, named.job("batch-1").path) == (
        tmp_path / "jobs" / "penstock.db",
        tmp_path / "jobs" / "jobs" / "batch-1",
    )


def test_a_home_that_is_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(HomeUnusable) as caught:
        Home(tmp_path / "file").create()
    assert str(caught.value) == f"{tmp_path}/file: File exists; set PENSTOCK_HOME to a folder of your own"
    with pytest.raises(HomeUnusable) as caught:
        Home(tmp_path / "file" / "home").create()
    assert str(caught.value) == f"{tmp_path}/file/home: Not a directory; set PENSTOCK_HOME to a folder of your own"


def test_a_home_that_cannot_be_written_is_one_line() -> None:
    # Root may write wherever it is possible at all; here it is not.
    with pytest.raises(HomeUnusable, match=r"^/proc/penstock: .*; set PENSTOCK_HOME to a folder of your own$"):
        Home(Path("/proc/penstock")).create()


def test_a_home_is_told_from_all_others_and_stays_the_same(tmp_path: Path) -> None:
    homes = [Home(tmp_path / name) for name in ("one", "other")]
    for home in homes:
        home.create()
    with ThreadPoolExecutor(8) as threads:
        ids = set(threads.map(lambda _: homes[0].identity(), range(8)))

    assert ids == {homes[0].identity()}
    assert homes[0].identity() != homes[1].identity()
    assert sorted(path.name for path in homes[0].path.iterdir()) == ["id", "jobs"]
