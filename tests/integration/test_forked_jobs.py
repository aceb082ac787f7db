"""Real pipelines, each in a fork of one warm server."""

import json
import os
import queue
import time
from pathlib import Path
from typing import Any

import pytest

from launcher.forks.forking import PRELOAD, ForkServer, Task
from tests.scenes import numbered_rows, published_rows, write_files

ROOT = Path(__file__).parents[2]
ROWS = 1000
# Importing Beam takes five seconds on an idle machine.
PATIENCE_S = 120.0


def test_pipelines_run_in_forks_of_one_server_and_import_nothing_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_files(tmp_path / "in", numbered_rows(ROWS), files=2)
    exits: queue.Queue[tuple[int, int]] = queue.Queue()
    server = ForkServer(
        # The tests' own model stands for one that a user has written, but for the time it takes to import.
        preload=[*PRELOAD, "tests.forked", "tests.scenes"],
        environment={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        log=tmp_path / "server.log",
        on_exit=lambda pid, code: exits.put((pid, code)),
        on_lost=lambda: None,
    )
    server.start()
    try:
        assert server.wait_until_warm(PATIENCE_S), (tmp_path / "server.log").read_text()
        jobs = [score(server, tmp_path, name) for name in ("first", "second", "third")]
        ended = dict(exits.get(timeout=PATIENCE_S) for _ in jobs)
        one_alone = score(server, tmp_path, "fourth")
        ended |= [exits.get(timeout=PATIENCE_S)]
    finally:
        server.close()
    told = [json.loads((tmp_path / f"{name}.json").read_text()) for name in ("first", "second", "third", "fourth")]
    with capsys.disabled():
        asked, answered = one_alone[1:]
        marks = {"fork returned": answered, **told[-1]["marks"]}
        print("\nms after a fork was asked for:", {name: round(1e3 * (at - asked), 1) for name, at in marks.items()})

    assert ended == {pid: 0 for pid, *_ in [*jobs, one_alone]}, (tmp_path / "output").read_text()
    assert [each["scored"] for each in told] == [ROWS] * 4
    assert [each["imported"] for each in told] == [[]] * 4
    assert published_rows(tmp_path / "scores-fourth") == [(i, 2.0 * i) for i in range(ROWS)]


def score(server: ForkServer, folder: Path, name: str) -> tuple[int, float, float]:
    """Fork an attempt. Returns its pid, and when it was asked for and answered."""
    (folder / f"job-{name}").mkdir()
    arguments: dict[str, Any] = {
        "folder": str(folder / f"job-{name}"),
        "output": f"scores-{name}",
        "to": str(folder / f"{name}.json"),
    }
    task = Task("tests.forked:score", arguments, str(folder), dict(os.environ), str(folder / "output"))
    asked = time.perf_counter()
    child = server.fork(task)
    return child.pid, asked, time.perf_counter()
