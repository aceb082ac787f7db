"""`penstock serve`: the API and all that runs behind it, in one process, until it is told to stop."""

import contextlib
import ctypes
import gc
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType

import uvicorn
from fastapi import FastAPI

from launcher import ATTEMPT
from launcher.api.app import make_app
from launcher.api.protocol import Bounds, bounded
from launcher.errors import PortTaken
from launcher.forks.forking import PRELOAD
from launcher.forks.processes import control
from launcher.home import Home
from launcher.logs import JsonFormatter
from launcher.reach.tenant import shared_folders
from launcher.service import Service
from launcher.settings import Settings

LOOPBACK = "127.0.0.1"
# Requests that are being answered get so long when the service is told to stop; then they are cut off.
GRACE_S = 5
# Longer than clients keep a connection that they may use again: or it would be closed under a request on its way.
KEEP_ALIVE_S = 75
# Answers wait for whichever thread computes to let go: five times as often as usual, so that they do not wait long.
_SWITCH_S = 0.001
# From linux/prctl.h, and from malloc.h.
_PR_SET_DUMPABLE = 4
_M_ARENA_MAX = -8
_M_MMAP_THRESHOLD = -3
_M_TRIM_THRESHOLD = -1
# Connections that wait to be taken.
_BACKLOG = 1024
# Descriptors that are no connections: the store's, files that are read, locks and pipes of jobs.
_OTHER_DESCRIPTORS = 250
_LEAST_CONNECTIONS = 50

_log = logging.getLogger("launcher.serve")


def serve(
    host: str,
    port: int,
    *,
    environment: Mapping[str, str] | None = None,
    preload: tuple[str, ...] = PRELOAD,
    attempt_module: str = ATTEMPT,
) -> None:
    """Serve until SIGTERM or SIGINT; jobs that are at work then go on.

    Once requests are answered, the address stands on the standard output; all else is told on the standard error, a
    JSON object a line.

    Args:
        host: where to listen; while there is no API key, only on 127.0.0.1, whatever this says.
        port: 0 takes a free one.
        environment: the settings; None: of this process.
        preload, attempt_module: see `Service`.

    Raises:
        PortTaken: nobody can listen there.
        HomeUnusable, StoreUnavailable, SettingWrong: it cannot start.
    """
    _keep_one_arena()
    _keep_to_itself()
    _log_as_json()
    sys.setswitchinterval(_SWITCH_S)
    service = Service(
        Settings.from_environment(environment),
        Home.from_environment(),
        Path.cwd(),
        keyless=None,
        preload=preload,
        attempt_module=attempt_module,
    )
    if service.ring.is_keyless():
        asked = "" if host == LOOPBACK else f", not on {host}"
        _log.warning(
            "there is no API key, so this machine alone is answered, on %s%s; `penstock keys create` makes one",
            LOOPBACK,
            asked,
        )
        host = LOOPBACK
    shared = shared_folders(service.settings, service.keys.list())
    if shared is not None:
        _log.warning("%s", shared)
    listening = _listen(host, port)
    try:
        app = make_app(service)
        service.start()
        try:
            _Server(app, listening).run(sockets=[listening])
        finally:
            at_work = sum(job.owner == service.id for job in service.store.at_work())
            service.stop()
            _log.info("stopped; %s", _what_goes_on(at_work))
    finally:
        listening.close()


class _Server(uvicorn.Server):
    """Tells when it answers, and ends the streams when it is to stop."""

    def __init__(self, app: FastAPI, listening: socket.socket) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=bounded(Bounds(connections=_connections())),
                loop="uvloop",
                ws="none",
                lifespan="off",
                access_log=False,
                log_config=None,
                server_header=False,
                timeout_graceful_shutdown=GRACE_S,
                timeout_keep_alive=KEEP_ALIVE_S,
            )
        )
        self._closing = app.state.closing
        self._listening = listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer."""
        await super().startup(sockets)
        # What is there now stays: no need for the collector to look through 500,000 objects again and again.
        gc.collect()
        gc.freeze()
        print(f"Penstock listens on {_url(self._listening)}", flush=True)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop at the first signal, at once at the second; there is more to do after, so neither ends the process."""
        before = {each: signal.signal(each, self.handle_exit) for each in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal came."""
        self._closing.set()
        super().handle_exit(sig, frame)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    except (OSError, UnicodeError) as error:
        reason = str(error)
        if isinstance(error, socket.gaierror):
            reason = error.strerror or reason
        elif isinstance(error, OSError) and error.errno is not None:
            # Without what Python adds to it.
            reason = os.strerror(error.errno)
        raise PortTaken(
            f"nobody can listen on {host} port {port}: {reason}; choose others by --host, --port"
        ) from error


def _connections() -> int:
    """How many connections may be open, so that descriptors are left for all else."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = Bounds.connections
    if descriptors == resource.RLIM_INFINITY:
        return most
    return max(_LEAST_CONNECTIONS, min(most, descriptors - _OTHER_DESCRIPTORS))


def _url(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _keep_one_arena() -> None:
    """Have glibc take memory for all threads from one place.

    By default each of some 40 threads gets an arena of its own, and none gives back what another could use: the
    service grew from 182 to 293 MiB in 11,000 requests, and with a single arena settled at 222. The interpreter's lock
    lets only one thread allocate at a time anyway.
    """
    with contextlib.suppress(AttributeError, OSError):  # another C library has no such call
        library = ctypes.CDLL(None)
        library.mallopt(_M_ARENA_MAX, 1)
        library.mallopt(_M_MMAP_THRESHOLD, 128 * 1024)
        library.mallopt(_M_TRIM_THRESHOLD, 4 * 1024 * 1024)


def _keep_to_itself() -> None:
    """Have no other process of the same user read this one's memory or environment, as a tenant's model might.

    https://man7.org/linux/man-pages/man2/PR_SET_DUMPABLE.2const.html
    """
    control(_PR_SET_DUMPABLE, 0)


def _what_goes_on(jobs: int) -> str:
    if not jobs:
        return "no job is at work"
    return f"{jobs} {'job goes' if jobs == 1 else 'jobs go'} on, and `penstock serve` finds them again"


def _log_as_json() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    # What these say of themselves is of no use to anybody here.
    for name in ("uvicorn.error", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
