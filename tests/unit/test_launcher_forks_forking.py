"""Forks of a server that has imported next to nothing: what they are, what is told of them, and what outlives what."""

import fcntl
import json
import os
import queue
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from launcher.errors import ForkFailed
from launcher.forks.forking import Child, ForkServer, Task
from launcher.forks.forkserver import MAX_FDS

ROOT = Path(__file__).parents[2]
# A loaded machine takes seconds to start Python.
PATIENCE_S = 60.0
SECRET = "s3cr3t-0f-4-c0nn3ct10n"
SCRUBBED = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}


@dataclass
class Forks:
    """A fork server and what it has told."""

    server: ForkServer
    folder: Path
    exits: "queue.Queue[tuple[int, int]]"
    lost: threading.Event
    children: list[Child] = field(default_factory=list)

    def task(self, entry: str, **arguments: Any) -> Task:
        return Task(f"tests.forked:{entry}", arguments, str(self.folder), {"GREETING": "hello"}, str(self.output))

    def fork(self, entry: str, *fds: int, **arguments: Any) -> Child:
        child = self.server.fork(self.task(entry, **arguments), fds, PATIENCE_S)
        self.children.append(child)
        return child

    def report(self, *fds: int, **arguments: Any) -> dict[str, Any]:
        """Fork a process that tells what it is."""
        to = self.folder / f"report-{len(self.children)}"
        child = self.fork("report", *fds, to=str(to), **arguments)
        assert self.end_of(child) == 0, self.output.read_text()
        told = json.loads(to.read_text())
        assert told["session"][0] == child.pid
        return told

    def end_of(self, child: Child) -> int:
        """The return code of the process that ends next, which should be `child`."""
        pid, code = self.exits.get(timeout=PATIENCE_S)
        assert pid == child.pid
        return code

    @property
    def output(self) -> Path:
        return self.folder / "output"

    @property
    def log(self) -> Path:
        return self.folder / "server.log"


@contextmanager
def forks_of(folder: Path, *preload: str) -> Iterator[Forks]:
    exits: queue.Queue[tuple[int, int]] = queue.Queue()
    lost = threading.Event()
    server = ForkServer(
        preload=preload,
        environment=SCRUBBED,
        log=folder / "server.log",
        on_exit=lambda pid, code: exits.put((pid, code)),
        on_lost=lost.set,
    )
    server.start()
    forks = Forks(server, folder, exits, lost)
    try:
        yield forks
    finally:
        server.close()
        for child in forks.children:
            if is_alive(child):
                psutil.Process(child.pid).kill()


@pytest.fixture
def forks(tmp_path: Path) -> Iterator[Forks]:
    with forks_of(tmp_path, "tests.forked") as forks:
        yield forks


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe that holds a fork until its second end is closed."""
    ends = os.pipe()
    yield ends
    for fd in ends:
        try:
            os.close(fd)
        except OSError:
            continue


def until(happened: Callable[[], object]) -> None:
    """Poll until something happened."""
    deadline = time.monotonic() + PATIENCE_S
    pause = threading.Event()
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        pause.wait(0.005)


def is_alive(child: Child) -> bool:
    try:
        process = psutil.Process(child.pid)
        return process.create_time() == child.started and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def pid_of(forks: Forks) -> int:
    assert forks.server.wait_until_warm(PATIENCE_S)
    pid = forks.server.pid
    assert pid is not None
    return pid


def test_a_fork_is_dressed_as_if_it_had_been_started_for_its_task(forks: Forks, tmp_path: Path) -> None:
    told = forks.report(number=1, text="ü")

    assert told["arguments"] == {"number": 1, "text": "ü", "to": str(tmp_path / "report-0")}
    assert told["environment"] == {"GREETING": "hello"}
    assert told["argv"] == ["penstock", "tests.forked:report"]
    assert told["folder"] == told["path"][-1] == str(tmp_path)
    assert "" not in told["path"]
    assert told["name"] == "penstock-job"
    assert forks.output.read_text() in ("to stdout, unflushedto stderr", "to stderrto stdout, unflushed")


def test_a_fork_leads_a_session_of_its_own_and_so_does_the_server(forks: Forks) -> None:
    told = forks.report()
    server = pid_of(forks)

    assert len(set(told["session"])) == 1
    assert os.getsid(server) == server


def test_a_fork_has_no_file_of_the_servers_and_those_that_it_was_given(forks: Forks, pipe: tuple[int, int]) -> None:
    told = forks.report(*pipe)

    assert told["stdin"] == os.devnull
    assert set(told["open"]) == {"0", "1", "2", *map(str, told["fds"])}
    assert [told["open"][str(fd)] for fd in told["fds"]] == [os.readlink(f"/proc/self/fd/{pipe[0]}")] * 2
    assert told["inheritable"] == []


def test_a_fork_has_signals_as_python_has_them(forks: Forks) -> None:
    told = forks.report()

    assert told["handled"] == ["SIGINT"]
    assert told["blocked"] == 0
    assert told["wakeup"] == -1


def test_each_fork_draws_other_random_numbers(forks: Forks) -> None:
    assert forks.report()["random"] != forks.report()["random"]


def test_a_secret_is_seen_in_no_process_from_outside(forks: Forks, pipe: tuple[int, int]) -> None:
    waits = forks.task("wait", password=SECRET)
    task = Task(waits.entry, waits.arguments, waits.working_dir, {"TOKEN": SECRET}, None)
    child = forks.server.fork(task, [pipe[0]])
    forks.children.append(child)
    shown = {
        (pid, what): Path(f"/proc/{pid}/{what}").read_bytes()
        for pid in (pid_of(forks), child.pid)
        for what in ("environ", "cmdline")
    }

    assert is_alive(child)
    assert all(text and SECRET.encode() not in text for text in shown.values())
    assert not any(b"GREETING" in text for text in shown.values())


def test_a_task_of_many_megabytes_arrives_whole(forks: Forks, pipe: tuple[int, int]) -> None:
    text = "0123456789" * 500_000

    told = forks.report(pipe[0], text=text)

    assert told["arguments"]["text"] == text
    assert len(told["fds"]) == 1


def test_as_many_files_as_the_kernel_takes_are_passed_and_more_are_refused(forks: Forks, pipe: tuple[int, int]) -> None:
    told = forks.report(*[pipe[0]] * MAX_FDS)

    assert len(told["fds"]) == MAX_FDS
    with pytest.raises(ForkFailed, match="254 open files are too many to pass to a fork; pass at most 253"):
        forks.fork("report", *[pipe[0]] * (MAX_FDS + 1))


def test_a_lock_that_is_passed_is_held_exactly_as_long_as_the_fork_lives(
    forks: Forks, pipe: tuple[int, int], tmp_path: Path
) -> None:
    def is_locked() -> bool:
        with open(tmp_path / "lock", "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            return False

    lock = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    child = forks.fork("wait", lock, pipe[0])
    os.close(lock)
    # Any other fork, or the server, would hold it longer.
    forks.report()
    while_it_lives = is_locked()
    os.kill(child.pid, signal.SIGKILL)
    forks.end_of(child)

    assert while_it_lives
    assert not is_locked()


@pytest.mark.parametrize(
    ("how", "code", "said"),
    [
        ("by itself", 0, ""),
        (3, 3, ""),
        ("with a word", 1, "a last word\n"),
        ("by an error", 1, "ValueError: a value is wrong\n"),
        ("SIGKILL", -9, ""),
        ("SIGTERM", -15, ""),
    ],
)
def test_the_end_of_a_fork_is_told_as_subprocess_tells_it(forks: Forks, how: Any, code: int, said: str) -> None:
    child = forks.fork("end", how=how)

    assert forks.end_of(child) == code
    assert forks.output.read_text().endswith(said)
    assert ("Traceback" in forks.output.read_text()) == (how == "by an error")


def test_an_entry_that_is_not_there_is_said_in_the_output(forks: Forks) -> None:
    child = forks.fork("nothing")

    assert forks.end_of(child) == 1
    assert "AttributeError: module 'tests.forked' has no attribute 'nothing'" in forks.output.read_text()


def test_exit_handlers_of_the_server_never_run(forks: Forks) -> None:
    forks.report()
    forks.server.close()

    assert "exit handlers" not in forks.output.read_text() + forks.log.read_text()


def test_a_fork_that_cannot_be_is_refused_and_the_server_goes_on(forks: Forks, tmp_path: Path) -> None:
    task = forks.task("report", to="unused")
    missing = str(tmp_path / "missing")

    with pytest.raises(ForkFailed, match=f"cannot be forked: No such file or directory: {missing}"):
        forks.server.fork(Task(task.entry, {}, missing, {}, None))
    with pytest.raises(ForkFailed, match=f"cannot be forked: Is a directory: {tmp_path}"):
        forks.server.fork(Task(task.entry, {}, str(tmp_path), {}, str(tmp_path)))
    assert forks.report()


def test_threads_fork_at_the_same_time(forks: Forks) -> None:
    with ThreadPoolExecutor(8) as threads:
        children = list(threads.map(lambda code: (code, forks.fork("end", how=code)), range(24)))
    ended = dict(forks.exits.get(timeout=PATIENCE_S) for _ in children)

    assert ended == {child.pid: code for code, child in children}


def test_a_fork_is_known_by_its_start_time(forks: Forks, pipe: tuple[int, int]) -> None:
    child = forks.fork("wait", pipe[0])

    assert psutil.Process(child.pid).create_time() == child.started


def test_a_server_that_is_killed_is_replaced_and_its_forks_live_on(
    forks: Forks, pipe: tuple[int, int], tmp_path: Path
) -> None:
    child = forks.fork("wait", pipe[0], then=str(tmp_path / "went on"))
    first = pid_of(forks)
    os.kill(first, signal.SIGKILL)
    was_lost = forks.lost.wait(PATIENCE_S)
    told = forks.report()
    alive = is_alive(child)
    os.close(pipe[1])
    until((tmp_path / "went on").exists)

    assert was_lost
    assert alive
    assert told["session"][0] != child.pid
    assert pid_of(forks) != first


def test_a_fork_that_a_server_dies_over_fails(forks: Forks) -> None:
    server = pid_of(forks)
    os.kill(server, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(forks.fork, "report", to="unused")
        until(lambda: unread(forks))
        os.kill(server, signal.SIGKILL)
        failure = asked.exception(PATIENCE_S)

    assert isinstance(failure, ForkFailed)
    assert str(failure) == ("the fork server died over it (killed by SIGKILL); whether the process runs is not known")


def unread(forks: Forks) -> int:
    """Bytes that were sent to the server and that it has not read."""
    running = forks.server._running
    assert running is not None
    return int.from_bytes(fcntl.ioctl(running._end, termios.TIOCOUTQ, bytes(4)), sys.byteorder)


def test_a_process_that_is_forked_too_late_is_killed(forks: Forks, pipe: tuple[int, int]) -> None:
    server = pid_of(forks)
    os.kill(server, signal.SIGSTOP)
    with pytest.raises(ForkFailed, match="did not answer in time"):
        forks.server.fork(forks.task("wait"), [pipe[0]], timeout_s=0.05)
    os.kill(server, signal.SIGCONT)
    _, code = forks.exits.get(timeout=PATIENCE_S)

    assert code == -signal.SIGKILL
    assert pid_of(forks) == server


def test_a_server_that_does_not_read_is_replaced(forks: Forks) -> None:
    server = pid_of(forks)
    os.kill(server, signal.SIGSTOP)
    with pytest.raises(ForkFailed, match="did not answer in time"):
        forks.server.fork(forks.task("report", text="0" * 2_000_000), timeout_s=0.05)

    assert forks.report()
    assert pid_of(forks) != server


def test_a_module_that_cannot_be_imported_is_told(tmp_path: Path) -> None:
    with forks_of(tmp_path, "json", "tests.no_such_module") as forks:
        warm = forks.server.wait_until_warm(PATIENCE_S)
        with pytest.raises(ForkFailed) as failure:
            forks.fork("report")

    assert not warm
    assert str(failure.value) == (
        "the fork server does not start: tests.no_such_module cannot be imported: ModuleNotFoundError: "
        f"No module named 'tests.no_such_module'; see {tmp_path}/server.log"
    )
    assert "Traceback" in (tmp_path / "server.log").read_text()
    assert not forks.lost.is_set()


def test_a_module_that_starts_a_thread_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "threading_at_import.py").write_text(
        "import threading\nthreading.Thread(target=threading.Event().wait, name='busy', daemon=True).start()\n"
    )
    monkeypatch.setitem(SCRUBBED, "PYTHONPATH", f"{ROOT}:{tmp_path}")
    with forks_of(tmp_path, "threading_at_import") as forks:
        warm = forks.server.wait_until_warm(PATIENCE_S)
        with pytest.raises(ForkFailed, match="importing started threads, which a fork would lose: MainThread, busy;"):
            forks.fork("report")

    assert not warm


def test_what_an_import_leaves_open_is_harmless_in_a_fork(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library writes to the number that it knows, and that must not be a file of the job."""
    (tmp_path / "opening_at_import.py").write_text(f"left = open({str(tmp_path / 'left')!r}, 'w')\n")
    monkeypatch.setitem(SCRUBBED, "PYTHONPATH", f"{ROOT}:{tmp_path}")
    with forks_of(tmp_path, "tests.forked", "opening_at_import") as forks:
        told = forks.report()

    assert list(told["open"].values()).count(os.devnull) == 2
    assert f"{tmp_path / 'left'}" not in told["open"].values()
    assert f"an import left {tmp_path / 'left'} open" in forks.log.read_text()


def test_a_closed_server_leaves_its_forks_and_refuses_more(forks: Forks, pipe: tuple[int, int], tmp_path: Path) -> None:
    child = forks.fork("wait", pipe[0], then=str(tmp_path / "went on"))
    server = pid_of(forks)
    forks.server.close()
    alive = is_alive(child)
    os.close(pipe[1])
    until((tmp_path / "went on").exists)

    assert alive
    assert not psutil.pid_exists(server)
    with pytest.raises(ForkFailed, match="the fork server is closed"):
        forks.fork("report")


def test_a_killed_launcher_takes_the_server_with_it_but_not_the_fork(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "hold")
    program = f"""
import json, sys, threading
from pathlib import Path
from launcher.forks.forking import ForkServer, Task
folder = sys.argv[1]
server = ForkServer(preload=["tests.forked"], environment={SCRUBBED!r}, log=Path(folder, "log"),
                    on_exit=lambda *_: None, on_lost=lambda: None)
server.start()
arguments = {{"until": folder + "/hold", "then": folder + "/went on"}}
child = server.fork(Task("tests.forked:wait", arguments, folder, {{}}, None))
print(json.dumps([server.pid, child.pid, child.started]), flush=True)
threading.Event().wait()
"""
    launcher = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], env=SCRUBBED, stdout=subprocess.PIPE, text=True
    )
    with launcher:
        assert launcher.stdout is not None
        server, pid, started = json.loads(launcher.stdout.readline())
        child = Child(pid, started)
        launcher.kill()
    until(lambda: not psutil.pid_exists(server))
    alive = is_alive(child)
    with open(tmp_path / "hold", "wb"):
        pass
    until((tmp_path / "went on").exists)
    until(lambda: not is_alive(child))

    assert alive
