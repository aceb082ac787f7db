"""What is called aside in tests: in a fork of a server that has imported this module."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def add(left: int, right: int) -> dict[str, Any]:
    return {"sum": left + right, "folder": os.getcwd(), "greeting": os.environ.get("GREETING")}


def much(characters: int) -> str:
    return "ä" * characters


def raw(data: list[int]) -> bytes:
    return bytes(data)


def take(megabytes: int) -> int:
    """Take memory, and give it back."""
    return len(bytearray(megabytes * 1024 * 1024))


def write(text: str) -> None:
    """Write into the pipe for the answer what is none, and end."""
    (pipe,) = (fd for fd in map(int, os.listdir("/proc/self/fd")) if _is_pipe(fd))
    os.write(pipe, text.encode())
    os._exit(0)


def _is_pipe(fd: int) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{fd}").startswith("pipe:")
    except FileNotFoundError:
        # It was the folder itself.
        return False


def fail(kind: str, text: str) -> None:
    raise {"ValueError": ValueError, "SystemExit": SystemExit, "TimeoutError": TimeoutError}[kind](text)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def stay(to: str) -> None:
    """Tell the pids of this process and of a child of it, then stay."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    draft = Path(f"{to}.draft")
    draft.write_text(f"{os.getpid()} {child.pid}")
    draft.rename(to)
    time.sleep(600)


def leave_child(to: str) -> str:
    """Answer, and leave a child behind."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(to).write_text(str(child.pid))
    return "done"


def say(text: str) -> str:
    print(text)
    return text
