"""An attempt whose model does not want to end. `model.features` is what it does, in order:

    closed     closes stdout and stderr
    stuck      has a stdout whose flush never returns
    shell      starts a helper by way of a shell, which ends
    daemon     starts a daemon that holds nothing of the job
    raises     is refused
    hold       tells that it is there, and stays

The pids of all that it starts are in `pids`, in the working folder.
"""

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from launcher.state.job import Job
from tests.unit.launcher_fakes import Prepared, discard, drop_snapshot, run
from tests.unit.orphans import daemon
from transforms.counts import Counts
from transforms.errors import InputError

__all__ = ["discard", "drop_snapshot", "prepare", "run"]


def prepare(
    job: Job, folder: Path, on_snapshot: Callable[[int, int | None], object], within: object = None
) -> Prepared:
    for step in job.spec.model.features or ():
        _STEPS[step]()
    (folder / "ledger").write_text("1000")
    return Prepared(job, folder, 1000, "result", "rejects", Counts(1000))


class _Stuck:
    def flush(self) -> None:
        threading.Event().wait()


def _close() -> None:
    sys.stdout.close()
    sys.stderr.close()


def _stick() -> None:
    sys.stdout = _Stuck()  # type: ignore[assignment]


def _shell() -> None:
    subprocess.run("sleep 600 & echo $! >> pids", shell=True, check=True)


def _daemon() -> None:
    with open("pids", "a") as pids:
        pids.write(f"{daemon()}\n")


def _raise() -> None:
    raise InputError("refused")


def _hold() -> None:
    Path("at").touch()
    threading.Event().wait()


_STEPS: dict[str, Callable[[], Any]] = {
    "closed": _close,
    "stuck": _stick,
    "shell": _shell,
    "daemon": _daemon,
    "raises": _raise,
    "hold": _hold,
}
