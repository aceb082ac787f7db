"""Errors of the launcher; each message is a line that says what, where and what to do.

LauncherError
├── RequestError      the request is wrong                      -> each line names a field and the remedy
├── HomeUnusable      PENSTOCK_HOME cannot be read or written   -> nothing was started
├── StoreUnavailable  the job store does not answer             -> the state stays as it was
├── JobUnknown        there is no such job                      -> look at `penstock jobs list`
├── JobExists         the id is taken                           -> another id
├── JobAlive          the job's process runs                    -> wait or stop it
├── MoveForbidden     no job may go from this state to that     -> a bug, or a wish that cannot be
├── Conflict          the job is not in the state, or the       -> look again, decide again
│                     attempt, expected
├── AsideFailed       work in a process of its own failed       -> the line says why
├── NotNow            the job as it stands does not allow it    -> the line says what can be done
├── RoleLacking       the API key may not do this               -> another key
├── ForkFailed        no process was forked for the job         -> try again; the line says why
├── NoRejects         the job has published no rejected rows    -> the line says why
├── ResultGone        the job's result is not there any more    -> the line says whose is
├── ResultUnreadable  a result is there and cannot be read      -> the line says why
├── SettingWrong      a variable of the service is unreadable   -> the service does not start
├── CronUnreadable    no such schedule can be                   -> the line says what to write
├── TemplateWrong     a `{{ … }}` of a job cannot be filled     -> the line says what may stand there
├── AddressForbidden  the host leads where no tenant may go     -> another host, or PENSTOCK_ALLOWED_HOSTS
├── HostUnknown       the host's name leads nowhere             -> now; perhaps later
├── UriForbidden      no tenant may connect so                  -> the line says what to leave out
├── SecretUnreadable  no webhook can be signed with this        -> another secret
├── WebhookFailed     a webhook was not taken                   -> `retry` says whether again
├── PathForbidden     the path leads where no tenant may go     -> another path, or PENSTOCK_ALLOWED_PATHS
├── TenantUnreadable  no tenant can be called so                -> another name
├── ApiKeyUnknown     there is no such API key                  -> look at `penstock keys list`
├── ModelUnknown      there is no such model, or version        -> look at the tenant's models
├── ModelInUse        a job or a schedule needs the model       -> it stays
├── ConnectionUnknown  there is no such connection              -> look at the tenant's connections
├── ConnectionInUse   a job or a schedule names the connection  -> it stays
├── ScheduleUnknown   there is no such schedule                 -> look at the tenant's schedules
├── KeyReused         another request had this idempotency key  -> another key
├── KeyBusy           the same request is being answered        -> ask again in a moment
├── TooManyStreams    the tenant follows as many jobs as it may -> end some, or ask now and then
├── Overloaded        the service bears no more of this         -> ask again in a moment
├── PortTaken         nobody can listen there                   -> another --host or --port
├── Unauthorized      no API key came, or none that opens       -> a key that is not revoked
├── CallerForbidden   whoever asks, from there they may not     -> the line says from where
├── NotAcceptable     no media type that is offered is wanted   -> one of those that the line lists
├── BodyTooLarge      a request's body has too many bytes       -> a smaller one
├── MediaTypeUnsupported  a request's body is no plain JSON     -> Content-Type: application/json
├── JsonMalformed     a request's body cannot be read           -> the line says where
└── StatusUnknown     no job can be in the state asked for      -> one of those that the line lists
"""

from collections.abc import Sequence
from typing import NamedTuple


class LauncherError(Exception):
    """A refusal whose reason is known; `str(error)` is one line."""


class Problem(NamedTuple):
    """One mistake: the field (empty when it is the whole request) and the rest of the sentence about it."""

    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field} {self.message}".lstrip()


class RequestError(LauncherError):
    """The request is wrong in one or more ways; `str(error)` has one line for each, none with a secret in it."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(problems)
        self.problems = list(problems)

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


class HomeUnusable(LauncherError):
    """PENSTOCK_HOME is missing rights or space, or is no folder."""


class StoreUnavailable(LauncherError):
    """The job store could not be read or written."""


class JobUnknown(LauncherError):
    """There is no job of this id."""

    def __init__(self, job_id: str) -> None:
        super().__init__(job_id)
        self.job_id = job_id

    def __str__(self) -> str:
        return f"there is no job {self.job_id!r}; `penstock jobs list` shows all"


class JobExists(LauncherError):
    """A job of this id is in the store already."""

    def __init__(self, job_id: str) -> None:
        super().__init__(job_id)
        self.job_id = job_id

    def __str__(self) -> str:
        return f"there is already a job {self.job_id}"


class JobAlive(LauncherError):
    """The job's process runs.

    Args:
        job_id: which job.
        pid: its process, when it is known.
    """

    def __init__(self, job_id: str, pid: int | None) -> None:
        super().__init__(job_id, pid)
        self.job_id = job_id
        self.pid = pid

    def __str__(self) -> str:
        return f"{self.job_id} is still running ({'starting' if self.pid is None else f'pid {self.pid}'})"


class MoveForbidden(LauncherError):
    """The table of moves does not have this one."""

    def __init__(self, job_id: str, status: str, to: str) -> None:
        super().__init__(job_id, status, to)
        self.job_id = job_id
        self.status = status
        self.to = to

    def __str__(self) -> str:
        return f"{self.job_id} is {self.status} and cannot become {self.to}"


class Conflict(LauncherError):
    """Somebody else moved the job first.

    Args:
        job_id: which job.
        status: the state it is in.
        expected: the states it was thought to be in.
        attempt, expected_attempt: the same for the attempt; None where it was not asked for.
    """

    def __init__(
        self,
        job_id: str,
        status: str,
        expected: tuple[str, ...],
        attempt: int | None = None,
        expected_attempt: int | None = None,
    ) -> None:
        super().__init__(job_id, status, expected, attempt, expected_attempt)
        self.job_id = job_id
        self.status = status
        self.expected = expected
        self.attempt = attempt
        self.expected_attempt = expected_attempt

    def __str__(self) -> str:
        if self.status in self.expected:
            return f"{self.job_id} is in attempt {self.attempt}, not {self.expected_attempt}"
        return f"{self.job_id} is {self.status}, not {' or '.join(self.expected)}"


class ForkFailed(LauncherError):
    """The fork server did not fork a process, or died over it."""


class AsideFailed(LauncherError):
    """Work in a process of its own did not come to its end.

    Args:
        kind: the class of the error that it raised, `TimeoutError` or `ProcessDied`.
        reason: in one line.
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(kind, reason)
        self.kind = kind
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class NotNow(LauncherError):
    """What was asked for cannot be done with the job as it stands; the line says why, and what can."""


class RoleLacking(LauncherError):
    """The API key may not do this; the line says which may."""


class NoRejects(LauncherError):
    """The job has published no rejected rows."""


class ResultGone(LauncherError):
    """The job's result is gone, or another job's has taken its place."""


class ResultUnreadable(LauncherError):
    """A job's result is there, but it cannot be read, or not in time."""


class SettingWrong(LauncherError):
    """An environment variable of the service cannot be read.

    Args:
        name: the variable.
        problem: the rest of the sentence about it.
    """

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(name, problem)
        self.name = name
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.name} {self.problem}"


class CronUnreadable(LauncherError):
    """A schedule's expression or timezone cannot be read, or its time never comes."""


class TemplateWrong(LauncherError):
    """A `{{ … }}` cannot be filled in.

    Args:
        field: the field that holds it.
        problem: the rest of the sentence about it.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(field, problem)
        self.field = field
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.field} {self.problem}".lstrip()


class AddressForbidden(LauncherError):
    """A host leads to an address that the service does not reach for a tenant.

    Args:
        host: as it was written.
        reason: the rest of the sentence about it; the address itself is not told.
    """

    def __init__(self, host: str, reason: str) -> None:
        super().__init__(host, reason)
        self.host = host
        self.reason = reason

    def __str__(self) -> str:
        return f"host {self.host!r} {self.reason}"


class HostUnknown(LauncherError):
    """No address is known for a host.

    Args:
        for_now: nobody could be asked for it; it may have one.
    """

    def __init__(self, host: str, for_now: bool = False) -> None:
        super().__init__(host)
        self.host = host
        self.for_now = for_now

    def __str__(self) -> str:
        if self.for_now:
            return f"the address of host {self.host!r} cannot be found out at the moment; try again"
        return f"host {self.host!r} has no address; check its spelling"


class UriForbidden(LauncherError):
    """A connection is written in a way that no tenant may connect; the line never repeats the URI."""


class SecretUnreadable(LauncherError):
    """A webhook's secret is empty or not what it says it is; the line never repeats it."""


class WebhookFailed(LauncherError):
    """A webhook was not taken.

    Args:
        reason: in one line, without the URL's path and without anything of the answer but its status.
        retry: whether the same may be taken later.
    """

    def __init__(self, reason: str, retry: bool) -> None:
        super().__init__(reason, retry)
        self.reason = reason
        self.retry = retry

    def __str__(self) -> str:
        return self.reason


class PathForbidden(LauncherError):
    """A path leads out of the folders that a request may name; the line does not say what is there.

    Args:
        field: the field that holds it.
        path: as it was written; empty where it is not to be told.
        reason: the rest of the sentence about it.
    """

    def __init__(self, field: str, path: str, reason: str) -> None:
        super().__init__(field, path, reason)
        self.field = field
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        shown = repr(self.path if len(self.path) <= _SHOWN_CHARS else self.path[:_SHOWN_CHARS] + "…")
        return " ".join(filter(None, (self.field, shown if self.path else "", self.reason)))


class StatusUnknown(LauncherError):
    """A state was asked for that no job can be in."""


class TenantUnreadable(LauncherError):
    """No tenant can be called so."""

    def __init__(self, tenant: str) -> None:
        super().__init__(tenant)
        self.tenant = tenant

    def __str__(self) -> str:
        shown = self.tenant if len(self.tenant) <= _SHOWN_CHARS else self.tenant[:_SHOWN_CHARS] + "…"
        return f"the tenant name {shown!r} cannot be used; write up to 63 of a-z, 0-9 and -, the first one no -"


class ApiKeyUnknown(LauncherError):
    """There is no API key of this id."""

    def __init__(self, key_id: str) -> None:
        super().__init__(key_id)
        self.key_id = key_id

    def __str__(self) -> str:
        return f"there is no API key {self.key_id!r}; `penstock keys list` shows all"


class ModelUnknown(LauncherError):
    """The tenant has no such model, or not this version of it; None is any version."""

    def __init__(self, model_id: str, version: int | None = None) -> None:
        super().__init__(model_id, version)
        self.model_id = model_id
        self.version = version

    def __str__(self) -> str:
        return f"there is no model {_named_model(self.model_id, self.version)}; `penstock models list` shows all"


class ModelInUse(LauncherError):
    """A job that is not over, or a schedule, uses the model.

    Args:
        model_id, version: which model; None is all its versions.
        user: the id of the job or schedule.
    """

    def __init__(self, model_id: str, version: int | None, user: str) -> None:
        super().__init__(model_id, version, user)
        self.model_id = model_id
        self.version = version
        self.user = user

    def __str__(self) -> str:
        return (
            f"model {_named_model(self.model_id, self.version)} is used by {self.user}; "
            "wait until it is over, or delete that first"
        )


class ConnectionUnknown(LauncherError):
    """The tenant has no connection of this name."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"there is no connection {self.name!r}; `penstock connections list` shows all"


class ConnectionInUse(LauncherError):
    """A job that is not over, or a schedule, names the connection.

    Args:
        name: which connection.
        user: the id of the job or schedule.
    """

    def __init__(self, name: str, user: str) -> None:
        super().__init__(name, user)
        self.name = name
        self.user = user

    def __str__(self) -> str:
        return f"connection {self.name!r} is used by {self.user}; wait until it is over, or delete that first"


class ScheduleUnknown(LauncherError):
    """There is no schedule of this id."""

    def __init__(self, schedule_id: str) -> None:
        super().__init__(schedule_id)
        self.schedule_id = schedule_id

    def __str__(self) -> str:
        return f"there is no schedule {self.schedule_id!r}; `penstock schedules list` shows all"


class KeyReused(LauncherError):
    """The idempotency key came with another request before."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key

    def __str__(self) -> str:
        return f"the Idempotency-Key {self.key!r} came with another request before; send a new request with a new key"


class KeyBusy(LauncherError):
    """The request that came with this idempotency key is still being answered."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key

    def __str__(self) -> str:
        return f"the request with the Idempotency-Key {self.key!r} is still being answered; send it again in a moment"


class TooManyStreams(LauncherError):
    """A tenant has as many streams of events as one may have; the line says how many."""


class Overloaded(LauncherError):
    """The service has as much to do at once as it bears; the line says of what."""


class PortTaken(LauncherError):
    """Nobody can listen on a host and port; the line says why."""


class Unauthorized(LauncherError):
    """No API key came with a request, or none that opens anything; it is not told which."""


class CallerForbidden(LauncherError):
    """Whoever asks, from where they ask they may not; the line says from where."""


class NotAcceptable(LauncherError):
    """None of the media types that are offered is wanted."""

    def __init__(self, offered: tuple[str, ...]) -> None:
        super().__init__(offered)
        self.offered = offered

    def __str__(self) -> str:
        return f"Accept names none of what is offered here; accept {' or '.join(self.offered)}"


class BodyTooLarge(LauncherError):
    """The body of a request has more bytes than are read."""


class MediaTypeUnsupported(LauncherError):
    """The body of a request is not JSON, or is compressed."""


class JsonMalformed(LauncherError):
    """The body of a request cannot be read; the line says where."""


# As much of a name as a line of a message bears.
_SHOWN_CHARS = 80


def _named_model(model_id: str, version: int | None) -> str:
    return f"{model_id!r}" if version is None else f"{model_id!r} version {version}"
