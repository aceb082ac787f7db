"""A launcher without an API, as a process that tests may kill.

    python -m tests.faults.launcher_alone HOME WORK [--attempt MODULE]

Says `warm` once jobs can be forked, then goes on until it is killed, or its standard input is closed.
"""

import argparse
import logging
import sys
from pathlib import Path

from launcher import ATTEMPT
from launcher.forks.forking import PRELOAD
from launcher.home import Home
from launcher.logs import JsonFormatter
from launcher.service import Service
from launcher.settings import Settings


def main() -> None:
    """Run a launcher."""
    parser = argparse.ArgumentParser()
    parser.add_argument("home", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--attempt", default=ATTEMPT)
    asked = parser.parse_args()
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    light = asked.attempt != ATTEMPT
    service = Service(
        Settings.from_environment(),
        Home(asked.home),
        asked.work,
        keyless=True,
        preload=("launcher.worker.jobprocess", asked.attempt) if light else PRELOAD,
        attempt_module=asked.attempt,
    )
    service.start()
    service.forks.wait_until_warm(120)
    print(f"warm {service.id}", flush=True)
    sys.stdin.read()
    service.stop()


if __name__ == "__main__":
    main()
