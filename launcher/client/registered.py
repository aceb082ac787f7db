"""What a tenant has registered with the service: models, connections, schedules."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from launcher.client.answers import (
    LIST_LIMIT,
    Connection,
    Model,
    Schedule,
    Scheduled,
    Told,
    pages,
    read_connection,
    read_model,
    read_schedule,
    read_scheduled,
    read_submission,
)
from launcher.client.errors import Misconfigured
from launcher.client.job import BATCH, Job
from launcher.client.wire import Method, Wire, part

_T = TypeVar("_T")


class _Registered:
    """One kind of things below one path."""

    _path = ""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def _ask(self, method: Method, path: str, body: Any = None, idempotency_key: str | None = None) -> Told:
        told = self._wire.ask(method, path, body=body, idempotency_key=idempotency_key)
        return Told(told, f"{method} {path}")

    def _all(self, path: str, name: str, read: Callable[[Told], _T]) -> Iterator[_T]:
        def ask(cursor: str | None) -> Told:
            query = {"limit": LIST_LIMIT, "cursor": cursor}
            return Told(self._wire.ask("GET", path, query=query), f"GET {path}")

        for page in pages(ask, name):
            for each in page:
                yield read(Told(each, f"GET {path}"))


class Models(_Registered):
    """The tenant's models. A model that is registered again under its id gets a further version."""

    _path = "/api/v1/models"

    def register(
        self,
        model_id: str,
        uri: str,
        *,
        flavor: str | None = None,
        features: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
        nulls: str | None = None,
        outputs: Sequence[str] | Mapping[str, str | Sequence[str]] | None = None,
        import_path: str | None = None,
        description: str | None = None,
        idempotency_key: str | None = None,
    ) -> Model:
        """Register a model, or a further version of one.

        Args:
            model_id: what jobs will call it.
            uri: a file that the service can read, or `module:Class`, for which it takes an admin's key.
            flavor: onnx or python; None where the uri tells it.
            features: the columns that it reads, in its order, or those of each of its inputs; None: those named like
                its inputs.
            nulls: reject, pass or fail: what a null or NaN among its features does.
            outputs: the outputs that become columns, or a column's name for each, or names for a list's values; None:
                all of them.
            import_path: the folder that the module is imported from.
            description: for people.
            idempotency_key: the same key and model give the same version; None makes one up.

        Raises:
            RequestRefused: names each field that is wrong.
            PenstockError: see the tree.
        """
        given = {
            "model_id": model_id,
            "uri": uri,
            "flavor": flavor,
            "features": _listed(features),
            "nulls": nulls,
            "outputs": _listed(outputs),
            "import_path": import_path,
            "description": description,
        }
        return read_model(self._ask("POST", self._path, _without_none(given), idempotency_key))

    def list(self) -> Iterator[Model]:
        """The newest version of each model."""
        return self._all(self._path, "models", read_model)

    def get(self, model_id: str, version: int | None = None) -> Model:
        """One version of a model; None is the newest."""
        return read_model(self._ask("GET", self._at(model_id, version)))

    def versions(self, model_id: str) -> Iterator[Model]:
        """All versions of a model."""
        return iter(self._ask("GET", f"{self._at(model_id, None)}/versions").all("versions", read_model))

    def delete(self, model_id: str, version: int | None = None) -> None:
        """Delete a version of a model; None deletes all.

        Raises:
            Conflict: a job that is not over, or a schedule, uses it.
            PenstockError: see the tree.
        """
        self._ask("DELETE", self._at(model_id, version))

    def _at(self, model_id: str, version: int | None) -> str:
        path = f"{self._path}/{part(model_id, 'model')}"
        return path if version is None else f"{path}/versions/{version}"


def _listed(names: Any) -> Any:
    """Names as JSON has them."""
    if isinstance(names, Mapping):
        return {name: each if isinstance(each, str) else list(each) for name, each in names.items()}
    return None if names is None else list(names)


class Connections(_Registered):
    """The tenant's connections. Their uris are secrets: they can be set, and are never shown."""

    _path = "/api/v1/connections"

    def set(
        self, name: str, uri: str, *, description: str | None = None, idempotency_key: str | None = None
    ) -> Connection:
        """Register a connection under a name, in place of the one that has it.

        Args:
            name: what jobs call it.
            uri: `postgresql://user:password@host/db`; a secret.
            description: for people.
            idempotency_key: None makes one up.

        Raises:
            RequestRefused: names each field that is wrong, without the uri.
            PenstockError: see the tree.
        """
        given = _without_none({"name": name, "uri": uri, "description": description})
        return read_connection(self._ask("POST", self._path, given, idempotency_key))

    def list(self) -> Iterator[Connection]:
        """All connections, their uris masked."""
        return self._all(self._path, "connections", read_connection)

    def get(self, name: str) -> Connection:
        """One connection, its uri masked."""
        return read_connection(self._ask("GET", self._at(name)))

    def delete(self, name: str) -> None:
        """Delete a connection.

        Raises:
            Conflict: a job that is not over, or a schedule, names it.
            PenstockError: see the tree.
        """
        self._ask("DELETE", self._at(name))

    def _at(self, name: str) -> str:
        return f"{self._path}/{part(name, 'connection')}"


class Schedules(_Registered):
    """The tenant's schedules: jobs that run again and again."""

    _path = "/api/v1/schedules"

    def create(
        self,
        schedule: Mapping[str, Any],
        job: Mapping[str, Any],
        *,
        name: str | None = None,
        idempotency_key: str | None = None,
    ) -> Schedule:
        """Make a schedule.

        Args:
            schedule: when: `cron`, and if wanted `timezone`, `enabled`, `missed` and `overlap`.
            job: what each run submits; its texts may hold `{{ scheduled_at }}`.
            name: for people.
            idempotency_key: None makes one up.

        Raises:
            RequestRefused: names each field that is wrong.
            PenstockError: see the tree.
        """
        return self.create_from(
            _without_none({"name": name, "schedule": dict(schedule), "job": dict(job)}), idempotency_key
        )

    def create_from(self, body: Mapping[str, Any], idempotency_key: str | None = None) -> Schedule:
        """Make a schedule of a body that has it all, as it was read from a file."""
        return read_schedule(self._ask("POST", self._path, dict(body), idempotency_key))

    def submit(self, spec: Mapping[str, Any], idempotency_key: str | None = None) -> Scheduled:
        """Take the body of a job that has a `schedule` in it, and make that schedule.

        Raises:
            Misconfigured: it has none; `Client.submit` takes it.
            PenstockError: see the tree.
        """
        if spec.get("schedule") is None:
            raise Misconfigured("the spec has no schedule; submit it with Client.submit")
        return read_scheduled(self._ask("POST", BATCH, dict(spec), idempotency_key))

    def list(self) -> Iterator[Schedule]:
        """All schedules."""
        return self._all(self._path, "schedules", read_schedule)

    def get(self, schedule_id: str) -> Schedule:
        """One schedule, with the next times that it runs."""
        return read_schedule(self._ask("GET", self._at(schedule_id)))

    def change(
        self,
        schedule_id: str,
        *,
        cron: str | None = None,
        timezone: str | None = None,
        enabled: bool | None = None,
        missed: str | None = None,
        overlap: str | None = None,
        job: Mapping[str, Any] | None = None,
    ) -> Schedule:
        """Change a schedule; what is None stays as it is. A job is replaced as a whole."""
        given = {
            "cron": cron,
            "timezone": timezone,
            "enabled": enabled,
            "missed": missed,
            "overlap": overlap,
            "job": None if job is None else dict(job),
        }
        return read_schedule(self._ask("PATCH", self._at(schedule_id), _without_none(given)))

    def pause(self, schedule_id: str) -> Schedule:
        """Have it not run until it is resumed. A run that is under way goes on."""
        return read_schedule(self._ask("POST", f"{self._at(schedule_id)}/pause"))

    def resume(self, schedule_id: str) -> Schedule:
        """Have it run again."""
        return read_schedule(self._ask("POST", f"{self._at(schedule_id)}/resume"))

    def run(self, schedule_id: str, idempotency_key: str | None = None) -> Job:
        """Run it once, now."""
        submission = read_submission(self._ask("POST", f"{self._at(schedule_id)}/run", idempotency_key=idempotency_key))
        return Job(self._wire, submission.job_id, submission=submission)

    def delete(self, schedule_id: str) -> None:
        """Delete it. Jobs that it has made stay."""
        self._ask("DELETE", self._at(schedule_id))

    def _at(self, schedule_id: str) -> str:
        return f"{self._path}/{part(schedule_id, 'schedule')}"


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
