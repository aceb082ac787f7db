"""How long a submitted job will take: by past jobs, and by its model, which is tried where those say little."""

import json
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from launcher.errors import AsideFailed, ForkFailed
from launcher.estimate.duration import Probe, estimated_s, is_known, usual_fixed_s
from launcher.forks.aside import call_aside
from launcher.forks.forking import Forks
from launcher.state.store import Past
from pipelines.spec import JobSpec
from predictors.bounds import Bounds

# Whoever submits the first job of a model waits no longer for it to be tried. What it was seen to cost is kept for so
# long, and that it could not be tried for a while.
_PROBE_S = 4.0
_KEPT_S, _FAILED_KEPT_S = 600.0, 30.0
_KEPT = 512
# Models that are tried at once: each takes a core. Others wait so long for their turn.
_AT_ONCE = 2
_TURN_S = 2.0


class PastJobs(Protocol):
    """What is needed of the job store."""

    def past(self, tenant: str, model_id: str, model_version: int | None) -> list[Past]:
        """The last jobs of a model that ended well."""
        ...

    def past_of_all(self, tenant: str) -> list[Past]:
        """Those of any model."""
        ...


@dataclass(frozen=True)
class Asking:
    """A job that is submitted.

    Args:
        tenant: whose.
        spec: connections by name.
        model_id, model_version: the registered model, where it is one.
        working_dir: where a Python model is imported from; None: nowhere.
        connections: URIs by name, once they are needed. Secrets.
        within: where files have to lie.
    """

    tenant: str
    spec: JobSpec
    model_id: str | None
    model_version: int | None
    working_dir: str | None
    connections: Callable[[], Mapping[str, str]]
    within: Bounds


class Estimating:
    """Estimates durations, from any thread.

    Args:
        store: knows past jobs.
        forks: of which models are tried: what a tenant's model does to a process, it does there.
        working_dir, environment: of those processes.
    """

    def __init__(self, store: PastJobs, forks: Forks, working_dir: str, environment: Mapping[str, str]) -> None:
        self._store = store
        self._forks = forks
        self._working_dir = working_dir
        self._environment = dict(environment)
        self._turns = threading.Semaphore(_AT_ONCE)
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, tuple[float, Probe | None]] = OrderedDict()

    def seconds(self, asking: Asking, rows: int | None, *, tries: bool = True) -> float | None:
        """Seconds from the job's start to its end; None where its rows are not known.

        Args:
            tries: the model may be tried, where past jobs do not tell enough: a matter of up to some seconds, once.
        """
        if rows is None:
            return None
        past: list[Past] = []
        if asking.model_id is not None:
            past = self._store.past(asking.tenant, asking.model_id, asking.model_version)
        probe = self._probe(asking) if rows and tries and not is_known(rows, past) else None
        fixed_s = usual_fixed_s(self._store.past_of_all(asking.tenant))
        return round(estimated_s(rows, asking.spec.config.batch_size, past, fixed_s, probe), 3)

    def _probe(self, asking: Asking) -> Probe | None:
        key = _key(asking)
        with self._lock:
            until, kept = self._kept.get(key, (0.0, None))
        if time.monotonic() < until:
            return kept
        if not self._forks.is_warm or not self._turns.acquire(timeout=_TURN_S):
            return None
        try:
            probe = self._tried(asking)
        finally:
            self._turns.release()
        with self._lock:
            self._kept[key] = (time.monotonic() + (_FAILED_KEPT_S if probe is None else _KEPT_S), probe)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return probe

    def _tried(self, asking: Asking) -> Probe | None:
        try:
            arguments = {
                "spec": asking.spec.to_json(),
                "connections": dict(asking.connections()),
                **asdict(asking.within),
            }
            told: dict[str, float] | None = call_aside(
                self._forks,
                "launcher.estimate.probing:probe",
                arguments,
                timeout_s=_PROBE_S,
                working_dir=asking.working_dir or self._working_dir,
                environment=self._environment,
                memory_bytes=int(asking.spec.config.max_memory_gb * 2**30),
            )
        except AsideFailed as error:
            # It takes longer than that to be loaded, or to score a row; how much longer nobody knows.
            return Probe(load_s=_PROBE_S) if error.kind == "TimeoutError" else None
        except ForkFailed:
            return None
        return None if told is None else Probe(**told)


def _key(asking: Asking) -> str:
    """What a probe depends on, as far as it is cheap to know."""
    spec = asking.spec
    model: dict[str, Any] = asdict(spec.model)
    try:
        status = os.stat(spec.model.uri)
        version: list[int] | None = [status.st_ino, status.st_size, status.st_mtime_ns]
    except (OSError, ValueError):
        version = None
    config = [spec.config.batch_size, spec.config.parallelism]
    kinds = [spec.input.source, spec.output.destination]
    return json.dumps([asking.tenant, model, version, asking.working_dir, *config, *kinds])
