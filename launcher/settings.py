"""What the environment says to the service. Read once, when it starts; a value that cannot be is told in one line."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

from launcher.limits import INPUT_ROWS, PARALLELISM, number_of
from launcher.traceparent import traces_are_wanted
from launcher.worker.failures import FIRST_WAIT_S
from launcher.worker.handover import LEASE_S

# What a job's process gets of the service's environment: where programs, libraries and certificates are, how many
# threads and which devices libraries may use. Whatever else it needs is named in PENSTOCK_JOB_ENVIRONMENT.
_PASSED = ("PATH", "HOME", "LANG", "TZ", "TMPDIR", "USER", "LOGNAME", "SHELL", "LD_LIBRARY_PATH", "LD_PRELOAD")
_PASSED_PREFIXES = ("LC_", "OMP_", "OPENBLAS_", "MKL_", "NUMEXPR_", "CUDA_", "NVIDIA_", "SSL_CERT_", "MALLOC_")


@dataclass(frozen=True)
class Settings:
    """The service's settings.

    Args:
        max_concurrent_jobs: BATCH_MAX_CONCURRENT_JOBS, jobs of one tenant at work at once.
        default_parallelism: BATCH_DEFAULT_PARALLELISM, of a job that does not say.
        max_input_rows: BATCH_MAX_INPUT_ROWS, rows of the largest job that is taken.
        result_ttl_hours: BATCH_RESULT_TTL_HOURS, how long what the service keeps of an ended job stays.
        max_jobs: PENSTOCK_MAX_JOBS, jobs of all tenants that this launcher has at work at once.
        store_url: PENSTOCK_STORE; None is a file of SQLite in PENSTOCK_HOME.
        default_connection: PENSTOCK_DEFAULT_CONNECTION, a URI or the name of a registered connection.
        allowed_paths: PENSTOCK_ALLOWED_PATHS as it is written; None where it is not set.
        allowed_hosts: PENSTOCK_ALLOWED_HOSTS as it is written.
        lease_s: PENSTOCK_LEASE_S, how long an attempt may be silent before it counts as dead.
        retry_wait_s: PENSTOCK_RETRY_WAIT_S, before the first retry of a job.
        job_environment: what a job's process gets of the environment.
        traced: OTEL_EXPORTER_OTLP_ENDPOINT is set; the rest of OpenTelemetry's variables it reads itself.
    """

    max_concurrent_jobs: int = 3
    default_parallelism: int = 4
    max_input_rows: int = 10_000_000
    result_ttl_hours: float = 168.0
    max_jobs: int = 16
    store_url: str | None = field(default=None, repr=False)
    default_connection: str | None = field(default=None, repr=False)
    allowed_paths: str | None = None
    allowed_hosts: str = ""
    lease_s: float = LEASE_S
    retry_wait_s: float = FIRST_WAIT_S
    job_environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    traced: bool = False

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> "Settings":
        """Read the variables; those that are not set, or empty, have their defaults.

        Raises:
            SettingWrong: names the variable, its value and the bound.
        """
        given = dict(os.environ if environment is None else environment)
        number = partial(number_of, given)
        return cls(
            max_concurrent_jobs=number("BATCH_MAX_CONCURRENT_JOBS", int, 1, 10_000, cls.max_concurrent_jobs),
            default_parallelism=number(*PARALLELISM, cls.default_parallelism),
            max_input_rows=number(*INPUT_ROWS, cls.max_input_rows),
            result_ttl_hours=number("BATCH_RESULT_TTL_HOURS", float, 0, 1e6, cls.result_ttl_hours),
            max_jobs=number("PENSTOCK_MAX_JOBS", int, 1, 10_000, cls.max_jobs),
            store_url=given.get("PENSTOCK_STORE") or None,
            default_connection=given.get("PENSTOCK_DEFAULT_CONNECTION") or None,
            allowed_paths=given.get("PENSTOCK_ALLOWED_PATHS") or None,
            allowed_hosts=given.get("PENSTOCK_ALLOWED_HOSTS", ""),
            lease_s=number("PENSTOCK_LEASE_S", float, 2, 86_400, cls.lease_s),
            retry_wait_s=number("PENSTOCK_RETRY_WAIT_S", float, 0, 3600, cls.retry_wait_s),
            job_environment=_passed(given),
            traced=traces_are_wanted(given),
        )


def _passed(given: Mapping[str, str]) -> dict[str, str]:
    named = {name.strip() for name in given.get("PENSTOCK_JOB_ENVIRONMENT", "").split(",")}
    return {
        name: value
        for name, value in given.items()
        if name in _PASSED or name in named or name.startswith(_PASSED_PREFIXES)
    }
