"""Forks that leave something behind. The fork server of a test imports this, too."""

import os
import time
from pathlib import Path
from typing import Any


def daemon() -> int:
    """Start a process that has left the session, and whose parent has ended; returns its pid."""
    told, tells = os.pipe()
    middle = os.fork()
    if not middle:
        os.setsid()
        if not os.fork():
            os.write(tells, str(os.getpid()).encode())
            # Not even the job's lock.
            os.closerange(0, 256)
            time.sleep(600)
        os._exit(0)
    os.waitpid(middle, 0)
    os.close(tells)
    pid = int(os.read(told, 20))
    os.close(told)
    return pid


def leave(arguments: dict[str, Any], fds: list[int]) -> None:
    """Start a daemon, tell its pid in the file `to`, and wait until nobody can write to the pipe, if there is one."""
    draft = Path(f"{arguments['to']}.draft")
    draft.write_text(str(daemon()))
    draft.rename(arguments["to"])
    for fd in fds:
        os.read(fd, 1)
