"""Admission: a request becomes a job that waits in its tenant's queue, or is refused at once with all that is wrong.

What the request names (a model, connections, paths, a webhook's receiver) is looked up and held against what the tenant
may reach; rows are counted, as far as that takes no longer than a second.
"""

import contextlib
import hashlib
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from launcher.errors import (
    AsideFailed,
    Conflict,
    ConnectionUnknown,
    HostUnknown,
    JobExists,
    JobUnknown,
    LauncherError,
    ModelUnknown,
    NoRejects,
    NotNow,
    PathForbidden,
    Problem,
    RequestError,
    ResultUnreadable,
    RoleLacking,
    SecretUnreadable,
    StoreUnavailable,
)
from launcher.estimate.counting import Counting
from launcher.estimate.estimating import Asking, Estimating
from launcher.forks.aside import call_aside
from launcher.forks.forking import Forks
from launcher.home import Home
from launcher.limits import too_many_rows
from launcher.reach.confined_spec import confine_spec
from launcher.reach.tenant import DEFAULT_CONNECTION, Reach
from launcher.request.service import JobRequest, WebhookRequest
from launcher.rows.folderpages import FoldersAside
from launcher.rows.rejects import opened_rejects, rejects_path
from launcher.rows.results import FolderResult
from launcher.settings import Settings
from launcher.state.job import Job, Webhook, new_id
from launcher.state.keys import Role
from launcher.state.registry import Models
from launcher.state.sql import SqlJobStore
from launcher.webhooks import check_secret, check_url
from pipelines.spec import JobSpec, ParquetInput, ParquetOutput, Rejects
from predictors.base import ModelSpec
from transforms.errors import ConnectionRefused, InputError, PipelineError
from transforms.sinks.output import Output
from transforms.sources.input import Input

# Whoever submits a job waits for it no longer than this.
_COUNT_S = 1.0
# Finding and opening the files that an estimate is of; those of all but absurd patterns are found in a second.
_LOOK_S = 10.0
# Looking at the data of an estimate takes 2 s by itself, and as long as the database needs for a count.
_ESTIMATE_S = 60.0
_REGISTER_MODEL = "register it by `penstock models register` or POST /api/v1/models"
_REGISTER_CONNECTION = "register it by `penstock connections set` or POST /api/v1/connections"
# Of the first move of an attempt that somebody asked for.
_RETRIED = "retried on request"
# A store's clock and a launcher's.
_CLOCKS_APART = timedelta(seconds=5)


@dataclass(frozen=True)
class Caller:
    """Who asks: a tenant, and what their key may do."""

    tenant: str
    role: Role


@dataclass(frozen=True)
class Asked:
    """A request with everything that it names looked up.

    Args:
        spec: connections by name, paths resolved; an output path that is empty is the service's to choose.
        working_dir: where a Python model is imported from; None is the job's own folder.
    """

    spec: JobSpec
    model_id: str | None
    model_version: int | None
    working_dir: str | None


class Admission:
    """Takes jobs in.

    Args:
        forks: where work that needs Beam is done.
        looks: where inputs are looked at while somebody waits; without Beam.
    """

    def __init__(
        self,
        home: Home,
        store: SqlJobStore,
        models: Models,
        reach: Reach,
        settings: Settings,
        forks: Forks,
        looks: Forks,
    ) -> None:
        self._home = home
        self._store = store
        self._models = models
        self._reach = reach
        self._settings = settings
        self._forks = forks
        self._counting = Counting(looks, str(home.path), settings.job_environment)
        self._estimating = Estimating(store, looks, str(home.path), settings.job_environment)
        self._folders = FoldersAside(looks, str(home.path), settings.job_environment)

    def submit(
        self,
        caller: Caller,
        request: JobRequest,
        *,
        job_id: str | None = None,
        reason: str = "submitted",
        traceparent: str | None = None,
    ) -> Job:
        """Take a job in; it waits in the queue when this returns.

        Args:
            job_id: the same request under the same id gives the same job; None makes one up.

        Raises:
            RequestError: something that the request names is not there, may not be reached, or is too large.
            RoleLacking: the key may not bring code.
            NotNow: another tenant's job has this id.
        """
        if job_id is not None:
            # Whatever it names may be gone by now.
            with contextlib.suppress(JobUnknown):
                return self._own(caller, job_id)
        secret = request.webhook.secret if request.webhook is not None else None
        while True:
            made = self.make(caller, request, job_id=job_id, traceparent=traceparent)
            try:
                self._store.add(made, reason, secret)
                return self._store.get(made.id)
            except JobExists:
                if job_id is not None:
                    return self._own(caller, job_id)

    def _own(self, caller: Caller, job_id: str) -> Job:
        job = self._store.get(job_id)
        if job.tenant != caller.tenant:
            # Ids are short, and chance may have made the same one for another tenant.
            raise NotNow("the id of this job is taken; send the request again, under another key")
        return job

    def make(
        self,
        caller: Caller,
        request: JobRequest,
        *,
        job_id: str | None = None,
        traceparent: str | None = None,
        schedule_id: str | None = None,
        scheduled_at: datetime | None = None,
    ) -> Job:
        """The job that a request asks for, not recorded yet.

        Raises:
            RequestError, RoleLacking: as `submit`.
        """
        asked = self.look_up(caller, request)
        rows = self._count(caller.tenant, asked.spec)
        webhook = None
        if request.webhook is not None:
            webhook = Webhook(request.webhook.url, tuple(request.webhook.events))
        job = Job(
            job_id or new_id(),
            asked.spec,
            asked.working_dir or "",
            datetime.now(UTC),
            total_rows=rows,
            tenant=caller.tenant,
            managed=True,
            model_id=asked.model_id,
            model_version=asked.model_version,
            name=request.name,
            labels=dict(request.labels),
            estimated_seconds=self._estimated_s(caller.tenant, asked, rows),
            keeps_result=asked.spec.output.lacks_place,
            webhook=webhook,
            traceparent=traceparent,
            schedule_id=schedule_id,
            scheduled_at=scheduled_at,
        )
        return self._placed(job)

    def look_up(self, caller: Caller, request: JobRequest) -> Asked:
        """Find what a request names, and hold it against what the caller may reach.

        A host whose address cannot be found out at the moment is no mistake of the request: the job looks again.

        Raises:
            RequestError, RoleLacking: as `submit`.
        """
        model, model_id, version, working_dir = self._model(caller, request)
        spec = JobSpec(
            model=model,
            input=self._input(request),
            output=self._output(request),
            rejects=request.rejects,
            config=request.config,
        )
        problems: list[Problem] = []
        try:
            spec = confine_spec(spec, self._reach.confinement(caller.tenant))
        except PathForbidden as error:
            problems.append(_of_path(error))
        for field, name in _first_named(spec):
            try:
                self._reach.uri(caller.tenant, name)
            except ConnectionUnknown as error:
                problems.append(Problem(field, _no_connection(name, error)))
            except StoreUnavailable:
                raise
            except LauncherError as error:
                if not _is_away(error):
                    problems.append(Problem(field, f"cannot be used: {error}"))
        if request.webhook is not None:
            problems += self._webhook_problems(caller.tenant, request.webhook)
        if problems:
            raise RequestError(problems)
        return Asked(spec, model_id, version, working_dir)

    def estimate(self, caller: Caller, request: JobRequest) -> dict[str, Any]:
        """What a job would take, from a timed sample; nothing is written.

        Raises:
            RequestError: as `submit`, or the job could not run: the line says why.
        """
        asked = self.look_up(caller, request)
        spec = asked.spec
        self._check_files(caller.tenant, spec)
        if spec.output.lacks_place:
            spec = replace(spec, output=spec.output.placed(str(self._home.jobs / "none" / "results")))
        arguments = {
            "spec": spec.to_json(),
            "connections": {name: self._reach.uri(caller.tenant, name) for name in spec.connection_names()},
            "max_memory_gb": spec.config.max_memory_gb,
            **asdict(self._reach.confinement(caller.tenant).bounds),
        }
        try:
            answer: dict[str, Any] = call_aside(
                self._forks,
                "launcher.estimate.forked:estimate",
                arguments,
                timeout_s=_ESTIMATE_S,
                working_dir=asked.working_dir or str(self._home.path),
                environment=self._settings.job_environment,
            )
        except AsideFailed as error:
            if error.kind in ("ProcessDied", "ForkFailed"):
                raise
            what = "could not be looked at" if error.kind == "TimeoutError" else "cannot run"
            raise RequestError([Problem("", f"this job {what}: {error}")]) from error
        if answer["rows"] > self._settings.max_input_rows:
            raise self._too_many(answer["rows"])
        return answer

    def retry(self, job: Job, max_reject_ratio: float | None = None, *, since: datetime | None = None) -> Job:
        """Have another attempt made of a job that failed or was cancelled; what is staged is not scored again.

        Args:
            since: a retry since then is the one that is asked for.

        Raises:
            NotNow: it is not over, or completed, or nothing is kept of it any more.
        """
        if since is not None and self._was_retried(job, since):
            return job
        self._check_retried(job)
        if job.status == "completed":
            raise NotNow(f"{job.id} is completed; retry it with only=rejected, or submit it anew")
        if job.retry_of is not None:
            # Another may have taken its place; both would add the same rows.
            self._retry_of(job.retry_of)
        spec = job.spec
        if max_reject_ratio is not None:
            spec = replace(spec, rejects=replace(spec.rejects, max_reject_ratio=max_reject_ratio))
        try:
            return self._store.move(job.id, ["failed", "cancelled"], "submitted", _RETRIED, spec=spec)
        except Conflict:
            # Somebody else was first, or it has just expired.
            self._check_retried(self._store.get(job.id))
            raise

    def retry_rejected(self, job: Job, *, since: datetime | None = None) -> Job:
        """Make a job of the rows that another one rejected; what passes is added to that one's result.

        The rejected rows are taken as they were published, so what was wrong with them must lie elsewhere: in the
        model, or in what the model asks.

        Args:
            since: a job that was made of them since then is the one that is asked for.

        Raises:
            NotNow: nothing of it was published, no row was rejected, or they were scored again already.
        """
        if since is not None:
            for made_before in self._retries_of(job.id):
                if made_before.created_at >= since - _CLOCKS_APART:
                    return made_before
        self._check_retried(job)
        if job.status != "completed":
            raise NotNow(
                f"{job.id} is {job.status}: nothing of it is published; retry it first, with max_reject_ratio if it "
                "failed of its rejects"
            )
        if job.counts is None or not job.counts.rejected:
            raise NotNow(f"{job.id} rejected no row; there is nothing to score again")
        if job.spec.rejects.path is None and not self._home.job(job.id).path.is_dir():
            raise NotNow(f"the rejects of {job.id} are gone")
        child = self._retry_of(job.id)
        try:
            path = rejects_path(job)
            within = self._reach.confinement(job.tenant).bounds_of(path, self._home.jobs)
            columns = self._folders.reject_columns(FolderResult(path, job.id, within))
            with opened_rejects(path, job.id, within) as rejects:
                folder = self._home.job(child)
                folder.create()
                rejects.link_into(folder.path / "input")
        except (NoRejects, ResultUnreadable) as error:
            raise NotNow(str(error)) from error
        output = job.spec.output
        kept = output.columns if output.columns is not None else columns
        wanted = output.adding_to(job.id, kept)
        made = replace(
            Job(child, job.spec, job.working_dir, datetime.now(UTC)),
            spec=replace(
                job.spec,
                input=ParquetInput((str(folder.path / "input"),)),
                output=wanted,
                rejects=Rejects(job.spec.rejects.path or str(folder.path / "rejects"), 1.0),
            ),
            working_dir=job.working_dir,
            total_rows=job.counts.rejected,
            tenant=job.tenant,
            managed=True,
            model_id=job.model_id,
            model_version=job.model_version,
            name=job.name,
            labels=job.labels,
            retry_of=job.id,
            webhook=job.webhook,
        )
        again = Asked(made.spec, made.model_id, made.model_version, made.working_dir)
        made = replace(made, estimated_seconds=self._estimated_s(job.tenant, again, made.total_rows, tries=False))
        try:
            self._store.add(made, f"the rejected rows of {job.id}", self._store.webhook_secret(job.id))
        except JobExists:
            raise NotNow(
                f"the rejected rows of {job.id} are scored again already, by {child}; look at that job"
            ) from None
        return self._store.get(child)

    # --- what a request names -----------------------------------------------------------------------------------

    def _model(self, caller: Caller, request: JobRequest) -> tuple[ModelSpec, str | None, int | None, str | None]:
        if request.model is not None:
            if request.model.runs_code and caller.role != "admin":
                raise RoleLacking("model.flavor python runs code: an admin key registers such a model")
            return request.model, None, None, None
        assert request.model_id is not None
        try:
            model = self._models.get(caller.tenant, request.model_id, request.model_version)
        except ModelUnknown as error:
            version = "" if request.model_version is None else f" in version {request.model_version}"
            line = f"{request.model_id!r} is not registered{version}; {_REGISTER_MODEL}"
            raise RequestError([Problem("model_id", line)]) from error
        return model.spec, model.model_id, model.version, model.working_dir

    @staticmethod
    def _input(request: JobRequest) -> Input:
        return request.input.with_connections(lambda name: name or DEFAULT_CONNECTION)

    def _output(self, request: JobRequest) -> Output:
        wanted = request.output
        if wanted is None:
            return ParquetOutput("")
        # A table goes where the rows come from.
        named = next((each.name for each in self._input(request).connections()), DEFAULT_CONNECTION)
        return wanted.with_connections(lambda name: name or named)

    def _webhook_problems(self, tenant: str, webhook: WebhookRequest) -> list[Problem]:
        try:
            check_url(webhook.url)
            parts = urlsplit(webhook.url)
            try:
                port = parts.port or (443 if parts.scheme == "https" else 80)
                self._reach.egress.resolve(parts.hostname or "", port, tenant)
            except HostUnknown as error:
                if not _is_away(error):
                    raise
            if webhook.secret is not None:
                check_secret(webhook.secret)
        except SecretUnreadable as error:
            return [Problem("webhook.secret", f"cannot be used: {error}")]
        except (LauncherError, ValueError) as error:
            return [Problem("webhook.url", f"cannot be used: {error}")]
        return []

    def _count(self, tenant: str, spec: JobSpec) -> int | None:
        try:
            given = spec.input.with_connections(lambda name: self._reach.uri(tenant, name))
        except HostUnknown:
            # For a moment; anything else was refused before.
            return None
        try:
            within = self._reach.confinement(tenant).bounds
            rows = self._counting.rows(tenant, given, _COUNT_S, within)
        except ConnectionRefused:
            # Perhaps in a moment; the job will see.
            return None
        except InputError as error:
            raise _of_input(error) from error
        except PipelineError as error:
            raise RequestError([Problem("input", str(error))]) from error
        if rows is not None and rows > self._settings.max_input_rows:
            raise self._too_many(rows)
        return rows

    def _check_files(self, tenant: str, spec: JobSpec) -> None:
        """Demand files that can be looked at in time, before more is spent on them.

        Raises:
            RequestError: there are too many, or none, or one leads elsewhere.
        """
        if not any(each.is_pattern for each in spec.input.paths()):
            return
        try:
            within = self._reach.confinement(tenant).bounds
            in_time = self._counting.can_be_listed(tenant, spec.input, _LOOK_S, within)
        except InputError as error:
            raise _of_input(error) from error
        if not in_time:
            line = f"names more folders and files than can be looked at in {_LOOK_S:g} s; name fewer"
            raise RequestError([Problem("input.path", line)])

    def _too_many(self, rows: int) -> RequestError:
        return RequestError([Problem("input", too_many_rows(rows, self._settings.max_input_rows))])

    def _estimated_s(self, tenant: str, asked: Asked, rows: int | None, *, tries: bool = True) -> float | None:
        """How long a job will take from its start; None where its rows are not known."""
        asking = Asking(
            tenant,
            asked.spec,
            asked.model_id,
            asked.model_version,
            asked.working_dir,
            lambda: {name: self._reach.uri(tenant, name) for name in asked.spec.connection_names()},
            self._reach.confinement(tenant).bounds,
        )
        return self._estimating.seconds(asking, rows, tries=tries)

    def _placed(self, job: Job) -> Job:
        """`job` with what lies in its own folder, for which its id has to be known."""
        folder = self._home.job(job.id).path
        spec = job.spec
        if job.keeps_result:
            spec = replace(spec, output=spec.output.placed(str(folder / "results")))
        in_own = job.model_id is None or not spec.model.runs_code
        return replace(job, spec=spec, working_dir=str(folder) if in_own or not job.working_dir else job.working_dir)

    # --- retries ------------------------------------------------------------------------------------------------

    def _check_retried(self, job: Job) -> None:
        if not job.managed:
            raise NotNow(f"{job.id} was run by `penstock run`; go on with it by `penstock resume {job.id}`")
        if not job.is_over:
            raise NotNow(f"{job.id} is {job.status}; cancel it first, or wait for its end")
        if job.expired_at is not None:
            raise NotNow(f"what was kept of {job.id} has expired; submit it anew")

    def _retry_of(self, job_id: str) -> str:
        """The id of the next job that scores the rejected rows of one again: one after the other, never two at once.

        Raises:
            NotNow: one scores them, or has scored them.
        """
        earlier = self._retries_of(job_id)
        for each in earlier:
            if each.status not in ("failed", "cancelled"):
                raise NotNow(f"the rejected rows of {job_id} are scored again already, by {each.id}; look at that job")
        return _retry_id(job_id, len(earlier))

    def _retries_of(self, job_id: str) -> list[Job]:
        """The jobs that score, or scored, the rejected rows of one again, the first first."""
        found: list[Job] = []
        with contextlib.suppress(JobUnknown):
            while True:
                found.append(self._store.get(_retry_id(job_id, len(found))))
        return found

    def _was_retried(self, job: Job, since: datetime) -> bool:
        return any(move.reason == _RETRIED and move.at >= since for move in self._store.moves(job.id))


def _retry_id(job_id: str, n: int) -> str:
    return "batch-" + hashlib.sha256(f"{job_id} rejected {n}".encode()).hexdigest()[:10]


def _is_away(error: LauncherError) -> bool:
    return isinstance(error, HostUnknown) and error.for_now


def _of_input(error: InputError) -> RequestError:
    """Its own words begin with the field."""
    field, _, rest = str(error).partition(" ")
    return RequestError([Problem(field, rest) if rest.startswith("leads ") else Problem("", str(error))])


def _of_path(error: PathForbidden) -> Problem:
    return Problem(error.field, str(error).removeprefix(error.field).lstrip())


def _no_connection(name: str, error: ConnectionUnknown) -> str:
    if error.name != name:
        default = f"the service's default one, {error.name!r} (PENSTOCK_DEFAULT_CONNECTION), is not registered"
        return f"is not named, and {default}; {_REGISTER_CONNECTION}, or name another"
    if name == DEFAULT_CONNECTION:
        return (
            "is not named, and the service has no default one (PENSTOCK_DEFAULT_CONNECTION); register one by "
            "`penstock connections set` or POST /api/v1/connections, and name it"
        )
    return f"{name!r} is not registered; {_REGISTER_CONNECTION}"


def _first_named(spec: JobSpec) -> list[tuple[str, str]]:
    """The connections that a spec names, each once, with the field that names it first."""
    fields: dict[str, str] = {}
    for each in spec.connections():
        fields.setdefault(each.name, each.field)
    return [(field, name) for name, field in fields.items()]
