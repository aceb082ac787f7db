"""Work of the launcher that needs Beam or a tenant's model: done in a process of its own, forked from the warm server.

The launcher itself never imports what such work needs, is not blocked by it, and does not grow with it.
"""

import importlib
import json
import os
import select
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from launcher.errors import AsideFailed
from launcher.forks.forking import Forks, Task
from launcher.forks.processes import kill_session


def call_aside(
    forks: Forks,
    function: str,
    arguments: Mapping[str, Any],
    *,
    timeout_s: float,
    working_dir: str,
    environment: Mapping[str, str],
    log: str | None = None,
) -> Any:
    """Call `module:function` with `arguments` (JSON values) in a process of its own, and return its answer.

    Raises:
        AsideFailed: it raised, took too long, or died; the line says which, `kind` is the class of what it raised.
    """
    answer, answer_in = os.pipe()
    try:
        try:
            task = Task(
                entry="launcher.forks.aside:run_aside",
                arguments={"function": function, "arguments": dict(arguments)},
                working_dir=working_dir,
                environment=dict(environment),
                output=log,
            )
            child = forks.fork(task, (answer_in,))
        finally:
            os.close(answer_in)
        try:
            data = _read_all(answer, time.monotonic() + timeout_s)
        except TimeoutError:
            raise AsideFailed("TimeoutError", f"it took longer than {timeout_s:g} s") from None
        finally:
            # It has nothing more to say, and nothing that it started may stay.
            kill_session(child.pid, child.started)
    finally:
        os.close(answer)
    try:
        values = json.loads(data)
    except ValueError:
        raise AsideFailed("ProcessDied", "its process died") from None
    if "error" in values:
        raise AsideFailed(values["kind"], values["error"])
    return values["answer"]


def run_aside(arguments: dict[str, Any], fds: Sequence[int]) -> NoReturn:
    """Be the process: call, write the answer, end."""
    module, _, name = arguments["function"].partition(":")
    try:
        function: Callable[..., Any] = getattr(importlib.import_module(module), name)
        text = json.dumps({"answer": function(**arguments["arguments"])}, default=str)
    except BaseException as error:
        line = " ".join(str(error).split())
        text = json.dumps({"error": line or type(error).__name__, "kind": type(error).__name__})
    data = text.encode()
    while data:
        data = data[os.write(fds[0], data) :]
    sys.stdout.flush()
    os._exit(0)


def _read_all(fd: int, deadline: float) -> bytes:
    """All that is written to a pipe until its other end is closed.

    Raises:
        TimeoutError: it was not closed by then.
    """
    pieces: list[bytes] = []
    # Not `select`: a launcher with many connections has numbers above its 1024.
    readable = select.poll()
    readable.register(fd, select.POLLIN)
    while True:
        left_s = deadline - time.monotonic()
        if left_s <= 0 or not readable.poll(left_s * 1000):
            raise TimeoutError
        piece = os.read(fd, 65536)
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)
