"""What forked processes do in tests. Importing it costs nothing: the fork server of a test imports it, too."""

import atexit
import json
import os
import random
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

# Leaves a trace in the server's own log if the server, or a fork of it, ever runs what was registered before the fork.
atexit.register(print, "the server's exit handlers ran", flush=True)


def report(arguments: dict[str, Any], fds: list[int]) -> None:
    """Write what the process looks like from inside to the file `to`."""
    facts = {
        "arguments": arguments,
        "environment": dict(os.environ),
        "argv": sys.argv,
        "path": sys.path,
        "folder": os.getcwd(),
        "session": [os.getpid(), os.getsid(0), os.getpgid(0)],
        "stdin": os.readlink("/proc/self/fd/0"),
        "fds": fds,
        "inheritable": [fd for fd in fds if os.get_inheritable(fd)],
        "open": open_files(),
        "handled": [
            number.name
            for number in signal.valid_signals()
            if isinstance(number, signal.Signals) and callable(signal.getsignal(number))
        ],
        "blocked": len(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        "wakeup": signal.set_wakeup_fd(-1),
        "name": Path("/proc/self/comm").read_text().strip(),
        "random": random.random(),
    }
    Path(arguments["to"]).write_text(json.dumps(facts))
    sys.stdout.write("to stdout, unflushed")
    sys.stderr.write("to stderr")


def open_files() -> dict[str, str]:
    """Files that this process has open, by number."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            # It was the folder itself.
            continue
    return found


def end(arguments: dict[str, Any], fds: list[int]) -> None:
    """End in the way that `how` says."""
    match arguments["how"]:
        case int(code):
            sys.exit(code)
        case "by itself":
            return
        case "with a word":
            sys.exit("a last word")
        case "by an error":
            raise ValueError("a value is wrong")
        case name:
            os.kill(os.getpid(), signal.Signals[name])


def wait(arguments: dict[str, Any], fds: list[int]) -> None:
    """Wait until nobody can write to the pipe `fds[-1]`, or to the named pipe `until`; then make the file `then`."""
    if "until" in arguments:
        with open(arguments["until"], "rb") as pipe:
            pipe.read()
    else:
        os.read(fds[-1], 1)
    if "then" in arguments:
        Path(arguments["then"]).touch()


def score(arguments: dict[str, Any], fds: list[int]) -> None:
    """Make one attempt of a small job, and tell when it came to what, and what it had to import."""
    marks = {"entry": time.perf_counter()}
    before = set(sys.modules)
    from launcher.state.job import Job
    from launcher.worker import attempt
    from pipelines.spec import Config, JobSpec, ParquetInput, ParquetOutput, Rejects
    from predictors.base import ModelSpec
    from transforms.publish import AlwaysOpen

    spec = JobSpec(
        ModelSpec("tests.scenes:Doubler", "python"),
        ParquetInput(("in",)),
        ParquetOutput(arguments["output"], "overwrite", ("id",)),
        Rejects(None, 0.1),
        Config(batch_size=10),
    )
    folder = Path(arguments["folder"])
    prepared = attempt.prepare(Job(folder.name, spec, os.getcwd(), datetime.now(UTC)), folder)
    marks["prepared"] = time.perf_counter()
    result = attempt.run(prepared, AlwaysOpen())
    marks["published"] = time.perf_counter()
    told = {"marks": marks, "scored": result.counts.scored, "imported": sorted(set(sys.modules) - before)}
    Path(arguments["to"]).write_text(json.dumps(told))
