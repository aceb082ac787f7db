"""Work of the launcher that needs Beam, a tenant's model or a tenant's database: done in a process of its own, forked
from the warm server.

The launcher itself never imports what such work needs, is not blocked by it, does not grow with it, and does not die of
it.
"""

import importlib
import json
import os
import resource
import select
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from launcher.errors import AsideFailed
from launcher.forks.forking import Forks, Task
from launcher.forks.processes import kill_session

# More than any answer has; a process that a tenant's file has broken may write without end.
_MOST_BYTES = 256 * 1024 * 1024
# A cold server is not waited for longer.
_FORK_S = 60.0


def call_aside(
    forks: Forks,
    function: str,
    arguments: Mapping[str, Any],
    *,
    timeout_s: float,
    working_dir: str,
    environment: Mapping[str, str],
    log: str | None = None,
    memory_bytes: int | None = None,
) -> Any:
    """Call `module:function` with `arguments` (JSON values) in a process of its own, and return its answer.

    The answer is JSON values, or bytes, which stay as they are.

    Args:
        timeout_s: for all of it; a server that is cold takes its share.
        memory_bytes: what the process may take on top of what it has of the server; allocations fail beyond it. None:
            as much as there is.

    Raises:
        ForkFailed: there is no process.
        AsideFailed: it raised, took too long, or died; the line says which, `kind` is the class of what it raised.
    """
    deadline = time.monotonic() + timeout_s
    answer, answer_in = os.pipe()
    try:
        try:
            task = Task(
                entry="launcher.forks.aside:run_aside",
                arguments={"function": function, "arguments": dict(arguments), "memory_bytes": memory_bytes},
                working_dir=working_dir,
                environment=dict(environment),
                output=log,
            )
            child = forks.fork(task, (answer_in,), min(timeout_s, _FORK_S))
        finally:
            os.close(answer_in)
        try:
            data = _read_all(answer, deadline)
        except TimeoutError:
            raise AsideFailed("TimeoutError", f"it took longer than {timeout_s:g} s") from None
        finally:
            # It has nothing more to say, and nothing that it started may stay.
            kill_session(child.pid, child.started)
    finally:
        os.close(answer)
    told, _, rest = data.partition(b"\n")
    try:
        values = json.loads(told)
    except (ValueError, RecursionError):
        raise _died() from None
    match values:
        case {"error": str(line), "kind": str(kind)}:
            raise AsideFailed(kind, line)
        case {"bytes": int(size)} if size == len(rest):
            return rest
        case {"answer": given}:
            return given
    raise _died()


def run_aside(arguments: dict[str, Any], fds: Sequence[int]) -> NoReturn:
    """Be the process: call, write the answer, end."""
    module, _, name = arguments["function"].partition(":")
    rest = b""
    try:
        if arguments["memory_bytes"] is not None:
            _bound_memory(arguments["memory_bytes"])
        function: Callable[..., Any] = getattr(importlib.import_module(module), name)
        answer = function(**arguments["arguments"])
        if isinstance(answer, bytes):
            told, rest = json.dumps({"bytes": len(answer)}), answer
        else:
            told = json.dumps({"answer": answer}, default=str)
    except BaseException as error:
        line = " ".join(str(error).split())
        told = json.dumps({"error": line or type(error).__name__, "kind": type(error).__name__})
    for piece in (told.encode() + b"\n", rest):
        left = memoryview(piece)
        while left:
            left = left[os.write(fds[0], left) :]
    sys.stdout.flush()
    os._exit(0)


def _bound_memory(more_bytes: int) -> None:
    """Have allocations fail once this process has taken so much more than it has now."""
    with open("/proc/self/status") as status:
        has_kb = next(int(line.split()[1]) for line in status if line.startswith("VmData:"))
    # Not the address space: of that libraries reserve some GB, with the first thread that they start.
    most = has_kb * 1024 + more_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def _died() -> AsideFailed:
    return AsideFailed("ProcessDied", "its process died")


def _read_all(fd: int, deadline: float) -> bytes:
    """All that is written to a pipe until its other end is closed.

    Raises:
        TimeoutError: it was not closed by then.
        AsideFailed: it is more than any answer has.
    """
    pieces: list[bytes] = []
    size = 0
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
        size += len(piece)
        if size > _MOST_BYTES:
            raise AsideFailed("AnswerTooLong", f"its answer has more than {_MOST_BYTES:,} bytes")
