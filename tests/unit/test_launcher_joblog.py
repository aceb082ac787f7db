"""A log keeps its head and its tail, is never longer than its bound, and is followed without a line twice."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from launcher import joblog
from launcher.joblog import JobLog, Layout, add_line, is_written, start_keeper
from launcher.loglines import read_lines

BOUND = joblog.HEAD_BYTES + joblog.TAIL_BYTES + joblog._MARK_BYTES


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds of some lines."""
    for name, size in {"HEAD_BYTES": 100, "TAIL_BYTES": 100, "_KEPT_BYTES": 50, "_SLACK_BYTES": 0}.items():
        monkeypatch.setattr(joblog, name, size)


def read(path: Path, limit_bytes: int, offset: int = 0) -> tuple[list[str], int]:
    """All lines from an offset on, in pieces, and where they end."""
    lines: list[str] = []
    while True:
        found = read_lines(path, offset, limit_bytes, None, is_over=True)
        lines += found.lines
        assert found.lines or found.at_end
        offset = found.next_offset
        if found.at_end:
            return lines, offset


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("limit_bytes", [1, 7, 64, 100, 10_000])
def test_the_head_and_the_tail_are_kept_and_what_is_between_is_counted(tmp_path: Path, limit_bytes: int) -> None:
    clock = Clock()
    log = JobLog(tmp_path / "log", clock)
    written = [f"line {n:04d}" for n in range(1000)]
    for line in written:
        log.write(f"{line}\n".encode())
        clock.now += 0.4
    log.settle(now=True)
    text = (tmp_path / "log").read_text()
    layout = Layout.of(log.fd)
    lines, end = read(tmp_path / "log", limit_bytes)

    assert len(text) <= 100 + 100 + joblog._MARK_BYTES
    assert text.startswith("".join(f"{line}\n" for line in written[:10]))
    assert text.endswith("line 0998\nline 0999\n")
    assert len(text) - joblog._MARK_BYTES + layout.dropped == 10 * 1000
    assert f"{layout.dropped:,} bytes of this log are left out here" in text
    assert end == 10 * 1000
    assert "".join(lines).replace(" ", "") == text.replace("\n", "").replace(" ", "")


@pytest.mark.usefixtures("small")
def test_one_who_follows_misses_nothing_but_what_is_left_out_and_sees_no_line_twice(tmp_path: Path) -> None:
    clock = Clock()
    log = JobLog(tmp_path / "log", clock)
    seen: list[str] = []
    offset = 0
    for n in range(300):
        log.write(f"line {n:04d}\n".encode())
        clock.now += 0.4
        if n % 7 == 0:
            lines, offset = read(tmp_path / "log", 10_000, offset)
            seen += [line for line in lines if line.startswith("line") and len(line) == 9]
    log.settle(now=True)
    seen += [line for line in read(tmp_path / "log", 10_000, offset)[0] if line.startswith("line") and len(line) == 9]

    assert seen == sorted(set(seen))
    assert seen[-1] == "line 0299"
    assert len(seen) > 200


@pytest.mark.usefixtures("small")
def test_the_log_of_a_later_attempt_goes_on_where_the_first_ended(tmp_path: Path) -> None:
    for attempt in range(4):
        log = JobLog(tmp_path / "log")
        log.write(f"attempt {attempt}\n".encode() * 20)
        log.settle(now=True)
        os.close(log.fd)
    add_line(tmp_path / "log", "died")
    text = (tmp_path / "log").read_text()

    assert text.startswith("attempt 0\n")
    assert text.endswith("attempt 3\ndied\n")
    assert text.count("left out here") == 1


@pytest.mark.parametrize("writer", ["native", "grandchild"])
def test_a_process_that_writes_without_end_is_bounded_and_its_last_words_are_kept(tmp_path: Path, writer: str) -> None:
    keeper, pipe = start_keeper(tmp_path / "log")
    command = "head -c 80000000 /dev/zero | tr '\\0' x; echo; echo last words"
    arguments = ["sh", "-c", command] if writer == "native" else [sys.executable, "-c", _GRANDCHILD, command]
    process = subprocess.Popen(arguments, stdout=pipe, stderr=pipe)
    os.close(pipe)
    sizes = [0]
    while process.poll() is None:
        sizes.append((tmp_path / "log").stat().st_size)
    is_kept = keeper.wait(60)
    data = (tmp_path / "log").read_bytes()

    assert is_kept == 0
    assert max(*sizes, len(data)) <= BOUND
    assert data.startswith(b"x" * 1000)
    assert data.endswith(b"x\nlast words\n")
    assert not is_written(tmp_path / "log")


_GRANDCHILD = "import subprocess, sys, os; subprocess.run(['sh', '-c', sys.argv[1]]); os.abort()"


def test_a_log_that_is_written_is_known_to_be(tmp_path: Path) -> None:
    keeper, pipe = start_keeper(tmp_path / "log")
    try:
        os.write(pipe, b"one\n")
        while not (tmp_path / "log").read_bytes():
            pass

        assert is_written(tmp_path / "log")
    finally:
        os.close(pipe)
        keeper.wait(60)

    assert not is_written(tmp_path / "log")
