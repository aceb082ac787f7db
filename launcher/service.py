"""The launcher as a service: everything that `penstock serve` runs beside its API, wired together.

Each part has a `tick` that does what is due and returns; here each gets a thread that ticks now and then, and at once
when it is woken.
"""

import contextlib
import logging
import secrets
import threading
from collections.abc import Callable
from pathlib import Path

from launcher import ATTEMPT
from launcher.admission import Admission
from launcher.errors import AsideFailed, HomeUnusable, LauncherError, StoreUnavailable
from launcher.forks.forking import LOOKS_PRELOAD, PRELOAD, ForkServer
from launcher.forks.processes import machine
from launcher.home import Home
from launcher.keyring import Keyring
from launcher.loops.dispatcher import Dispatcher
from launcher.loops.janitor import Janitor
from launcher.loops.postman import Postman
from launcher.loops.reaper import Reaper
from launcher.loops.timekeeper import Timekeeper
from launcher.purging import check_purge
from launcher.reach.tenant import Reach
from launcher.request.service import Defaults
from launcher.settings import Settings
from launcher.state.deliveries import Deliveries
from launcher.state.idempotency import Idempotency
from launcher.state.job import Job
from launcher.state.keys import KeyStore
from launcher.state.registry import Connections, Models
from launcher.state.schedules import Schedules
from launcher.state.sql import SqlJobStore
from launcher.traceparent import Tracing

# How often each looks by itself. What happens in this launcher wakes it at once; the rest is what happens elsewhere.
_DISPATCH_EVERY_S = 0.5
_REAP_EVERY_S = 0.5
_TIME_EVERY_S = 0.5
_POST_EVERY_S = 1.0
_CLEAN_EVERY_S = 10.0
_TRACE_EVERY_S = 2.0

_log = logging.getLogger("launcher")


class Service:
    """One launcher.

    Args:
        working_dir: the folder that relative paths of requests start from, where PENSTOCK_ALLOWED_PATHS is not set.
        keyless: no API key is asked for, until there is one: whoever reaches the service is who started it. None: as
            there is a key in the store, or not.
        preload: what the fork server imports.
        looks: the server that inputs are looked at in while somebody waits; None: one of its own.
        attempt_module: what makes the attempts of jobs.

    Raises:
        HomeUnusable, StoreUnavailable, LauncherError: it cannot start.
    """

    def __init__(
        self,
        settings: Settings,
        home: Home,
        working_dir: Path,
        *,
        keyless: bool | None,
        preload: tuple[str, ...] = PRELOAD,
        attempt_module: str = ATTEMPT,
        looks: ForkServer | None = None,
    ) -> None:
        self.settings = settings
        self.home = home
        self.id = f"{machine()}-{secrets.token_hex(4)}"
        home.create()
        self.store = SqlJobStore.named(settings.store_url, home.store)
        database = self.store.database
        if database.settle_fact("home", home.identity()) != home.identity():
            self.store.close()
            # Plans, snapshots and staged rows lie in the home; a job is nothing without them.
            raise HomeUnusable(
                f"the job store {database.where} belongs to launchers of another PENSTOCK_HOME than {home.path}; "
                "share that one, over a file system whose locks reach all machines, or name another store"
            )
        self.keys = KeyStore(database)
        self.ring = Keyring(self.keys, not self.keys.any() if keyless is None else keyless)
        self.models = Models(database)
        self.connections = Connections(database)
        self.schedules = Schedules(database)
        self.idempotency = Idempotency(database)
        self.deliveries = Deliveries(database)
        self.defaults = Defaults(parallelism=settings.default_parallelism)
        self.reach = Reach(settings, self.connections, home.path, working_dir, self.ring.is_keyless)
        self.forks = ForkServer(
            preload=preload,
            environment=settings.job_environment,
            log=home.path / "forkserver.log",
            on_exit=self._on_exit,
            on_lost=lambda: self._reaping.wake(),
        )
        self.looks = looks or ForkServer(
            preload=LOOKS_PRELOAD,
            environment=settings.job_environment,
            log=home.path / "lookserver.log",
            on_exit=lambda pid, returncode: None,
            on_lost=lambda: None,
        )
        self.admission = Admission(home, self.store, self.models, self.reach, settings, self.forks, self.looks)
        self.dispatcher = Dispatcher(
            home,
            self.store,
            self.forks,
            settings,
            self.id,
            self.reach.uris,
            self.reach.folders,
            attempt_module,
            machine(),
            home.launcher_lives,
            wake=lambda: self._dispatching.wake(),
        )
        self.reaper = Reaper(
            home, self.store, settings, home.launcher_lives, self.dispatcher.is_starting, machine=machine()
        )
        self.timekeeper = Timekeeper(self.store, self.schedules, self.admission, self.defaults)
        self.postman = Postman(self.deliveries, self.reach.egress, "/api/v1/inference/batch")
        self.janitor = Janitor(
            home, self.store, self.idempotency, self.deliveries, self.reach, settings, self.forks, attempt_module
        )
        self._dispatching = _Ticking("dispatch", self.dispatcher.tick, _DISPATCH_EVERY_S)
        self._reaping = _Ticking("reap", self._reap, _REAP_EVERY_S)
        self._ticking = [
            self._dispatching,
            self._reaping,
            _Ticking("time", self._keep_time, _TIME_EVERY_S),
            _Ticking("post", self.postman.tick, _POST_EVERY_S),
            _Ticking("clean", self.janitor.tick, _CLEAN_EVERY_S),
        ]
        self.tracing = self._traced() if settings.traced else None
        if self.tracing is not None:
            self._ticking.append(_Ticking("trace", self.tracing.tick, _TRACE_EVERY_S))

    def start(self) -> None:
        """Begin. Jobs that still run are adopted, those whose process is gone go on."""
        self._mark = self.home.sign_on(self.id)
        # First: it is warm within a second, and asked as soon as requests come.
        self.looks.start()
        self.forks.start()
        if self.tracing is not None:
            self.tracing.start()
        for each in self._ticking:
            each.start()

    def stop(self) -> None:
        """End; jobs that are at work go on, and whoever starts the service again finds them."""
        self.dispatcher.close()
        for each in self._ticking:
            each.stop()
        with contextlib.suppress(LauncherError):
            # Else the next launcher would have to find out.
            self.dispatcher.leave()
        self.postman.close()
        self.forks.close()
        self.looks.close()
        if self.tracing is not None:
            with contextlib.suppress(LauncherError):
                self.tracing.tick()
            self.tracing.close()
        self.store.close()
        self._mark.release()

    def wake(self) -> None:
        """A job waits: look at once rather than soon. From any thread."""
        self._dispatching.wake()

    def cancel(self, job: Job, reason: str = "cancelled on request") -> Job:
        """Have a job stop. Its process is told, and is gone within 5 s; one that waits is cancelled at once.

        Raises:
            Conflict: it is over.
        """
        told = self.store.request_cancel(job.id, reason)
        self._reaping.wake()
        return told

    def purge(self, job: Job) -> None:
        """Remove a job that is over: its record, what the service kept, and what it staged. What it published stays.

        Raises:
            NotNow, Conflict, JobAlive: it is not over, or something is at work on what is kept of it.
            AsideFailed, HomeUnusable, StoreUnavailable: not all of it could be removed; called again, it goes on.
        """
        check_purge(self.store, job)
        try:
            self.janitor.purge(job)
        except AsideFailed as error:
            again = "purge it again once it is reached, or forget its connection first, and those rows stay"
            raise AsideFailed(error.kind, f"what {job.id} staged is not removed: {error}; {again}") from error

    def _reap(self) -> int:
        settled = self.reaper.tick()
        if settled:
            self.wake()
        return settled

    def _keep_time(self) -> int:
        made = self.timekeeper.tick()
        if made:
            self.wake()
        return made

    def _traced(self) -> Tracing | None:
        from launcher import tracing  # OpenTelemetry, for those alone who want it

        try:
            return tracing.Tracing(self.id, self.store, self._is_ours)
        except Exception as error:
            # Its variables are many; none is worth a service that does not start.
            _log.error("nothing is traced: %s: %s", type(error).__name__, " ".join(str(error).split()))
            return None

    def _is_ours(self, owner: str | None) -> bool:
        return owner is None or owner == self.id or not self.home.launcher_lives(owner)

    def _on_exit(self, pid: int, returncode: int) -> None:
        self.reaper.note_exit(pid, returncode)
        # There may be room for another, or something to put right.
        self._reaping.wake()
        self._dispatching.wake()


class _Ticking:
    """A thread that calls `tick` again and again, whatever becomes of it."""

    def __init__(self, name: str, tick: Callable[[], int], every_s: float) -> None:
        self._tick = tick
        self._every_s = every_s
        self._woken = threading.Event()
        self._over = threading.Event()
        self._troubled = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        self._woken.set()

    def stop(self, patience_s: float = 2.0) -> None:
        self._over.set()
        self._woken.set()
        self._thread.join(patience_s)

    def _run(self) -> None:
        while not self._over.is_set():
            self._woken.wait(self._every_s)
            self._woken.clear()
            if self._over.is_set():
                return
            try:
                self._tick()
                self._troubled = False
            except LauncherError as error:
                # A store that is away for a while would fill the log.
                if not self._troubled or not isinstance(error, StoreUnavailable):
                    _log.error("%s: %s", self._thread.name, error)
                self._troubled = True
            except Exception:
                _log.exception("%s broke; it goes on", self._thread.name)


__all__ = ["Service"]
