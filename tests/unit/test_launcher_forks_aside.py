"""Work in a process of its own: its answer, its errors, and that nothing of it stays."""

import os
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from launcher.errors import AsideFailed, ForkFailed
from launcher.forks.aside import call_aside
from launcher.forks.forking import ForkServer
from tests.unit.launcher_parts import PATIENCE_S, FakeForks, until, warm_forks


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    with warm_forks(tmp_path_factory.mktemp("forks"), "launcher.forks.aside", "tests.unit.asides") as server:
        yield server


@dataclass
class Aside:
    forks: Any
    folder: Path

    def call(
        self, function: str, timeout_s: float = PATIENCE_S, memory_bytes: int | None = None, **arguments: Any
    ) -> Any:
        return call_aside(
            self.forks,
            f"tests.unit.asides:{function}",
            arguments,
            timeout_s=timeout_s,
            working_dir=str(self.folder),
            environment={"GREETING": "hello"},
            log=str(self.folder / "log"),
            memory_bytes=memory_bytes,
        )


@pytest.fixture
def aside(forks: ForkServer, tmp_path: Path) -> Aside:
    return Aside(forks, tmp_path)


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_the_answer_comes_back(aside: Aside) -> None:
    assert aside.call("add", left=2, right=3) == {"sum": 5, "folder": str(aside.folder), "greeting": "hello"}


def test_an_answer_may_be_longer_than_a_pipe_holds(aside: Aside) -> None:
    assert aside.call("much", characters=300_000) == "ä" * 300_000


@pytest.mark.parametrize("data", [b"", b"\n", bytes(range(256)) * 1000], ids=["none", "a line", "longer than a pipe"])
def test_bytes_come_back_as_they_are(aside: Aside, data: bytes) -> None:
    assert aside.call("raw", data=list(data)) == data


def test_what_needs_more_memory_than_it_may_take_fails(aside: Aside) -> None:
    with pytest.raises(AsideFailed) as told:
        aside.call("take", megabytes=200, memory_bytes=100 * 1024 * 1024)

    assert told.value.kind == "MemoryError"
    assert aside.call("take", megabytes=50, memory_bytes=100 * 1024 * 1024) == 50 * 1024 * 1024


@pytest.mark.parametrize("text", ["", "5", "[]", '{"bytes": 7}\nfew', '{"error": 1, "kind": "E"}', "[" * 60_000])
def test_an_answer_that_is_none_is_told_as_a_death(aside: Aside, text: str) -> None:
    with pytest.raises(AsideFailed) as told:
        aside.call("write", text=text)

    assert told.value.kind == "ProcessDied"


def test_an_answer_without_end_is_not_kept(aside: Aside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("launcher.forks.aside._MOST_BYTES", 100_000)

    with pytest.raises(AsideFailed, match="its answer has more than 100,000 bytes"):
        aside.call("much", characters=300_000)


def test_what_it_says_is_in_the_log(aside: Aside) -> None:
    aside.call("say", text="a word")

    assert (aside.folder / "log").read_text() == "a word\n"


@pytest.mark.parametrize(
    ("kind", "text", "line"),
    [
        ("ValueError", "a value\n  is wrong", "a value is wrong"),
        ("ValueError", "", "ValueError"),
        ("SystemExit", "leaves", "leaves"),
        ("TimeoutError", "the database does not answer", "the database does not answer"),
    ],
)
def test_what_it_raises_comes_back_by_kind_and_in_one_line(aside: Aside, kind: str, text: str, line: str) -> None:
    with pytest.raises(AsideFailed) as told:
        aside.call("fail", kind=kind, text=text)

    assert (told.value.kind, str(told.value)) == (kind, line)


def test_a_function_that_is_not_there_is_told(aside: Aside) -> None:
    with pytest.raises(AsideFailed, match="nothing") as told:
        aside.call("nothing")

    assert told.value.kind == "AttributeError"


def test_a_process_that_dies_is_told(aside: Aside) -> None:
    with pytest.raises(AsideFailed) as told:
        aside.call("die")

    assert (told.value.kind, str(told.value)) == ("ProcessDied", "its process died")


def test_what_takes_too_long_is_ended_with_all_that_it_has_started(aside: Aside) -> None:
    # Long enough for the child to start; what is waited for is that it ends.
    with pytest.raises(AsideFailed) as told:
        aside.call("stay", timeout_s=3, to=str(aside.folder / "pids"))
    pids = [int(pid) for pid in (aside.folder / "pids").read_text().split()]
    until(lambda: all(map(gone, pids)))

    assert (told.value.kind, str(told.value)) == ("TimeoutError", "it took longer than 3 s")


def test_what_it_leaves_behind_is_ended_after_its_answer(aside: Aside) -> None:
    answer = aside.call("leave_child", to=str(aside.folder / "pid"))
    pid = int((aside.folder / "pid").read_text())
    until(lambda: gone(pid))

    assert answer == "done"


def test_a_launcher_with_very_many_open_files_is_answered(aside: Aside) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 3000:
        pytest.skip("this machine allows too few open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 3000), hard))
    held = [open(aside.folder / "held", "wb") for _ in range(1100)]  # noqa: SIM115
    try:
        assert held[-1].fileno() > 1024
        assert aside.call("add", left=1, right=1)["sum"] == 2
    finally:
        for file in held:
            file.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_server_that_is_cold_is_not_waited_for_longer(tmp_path: Path) -> None:
    server = ForkServer(
        preload=("sleeping",),
        environment={**os.environ, "PYTHONPATH": str(tmp_path)},
        log=tmp_path / "log",
        on_exit=lambda pid, code: None,
        on_lost=lambda: None,
    )
    (tmp_path / "sleeping.py").write_text("import signal\nsignal.pause()\n")
    server.start()
    began = time.monotonic()
    try:
        with pytest.raises(ForkFailed, match="is not warm yet"):
            Aside(server, tmp_path).call("add", timeout_s=0.1, left=1, right=1)
    finally:
        server.close()

    assert time.monotonic() - began < 30


def test_a_process_that_cannot_be_forked_is_told_and_leaves_nothing_open(tmp_path: Path) -> None:
    own = psutil.Process()
    before = own.num_fds()
    with pytest.raises(ForkFailed):
        Aside(FakeForks([ForkFailed("the fork server is not warm yet")]), tmp_path).call("add")

    assert own.num_fds() == before
