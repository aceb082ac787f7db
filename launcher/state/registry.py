"""Models by id and version, and connections by name, each tenant's own.

What a job that is not over, or a schedule, still needs cannot be deleted.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from launcher.errors import ConnectionInUse, ConnectionUnknown, ModelInUse, ModelUnknown
from launcher.state import tables
from launcher.state.database import Database
from launcher.state.job import ACTIVE
from predictors.base import ModelSpec

_models, _connections = tables.models, tables.connections
# Of the transactions that decide by more than one row, see `Database.transaction`; 0 and 1 are migrations and claims.
_REGISTERING = 2


@dataclass(frozen=True)
class Model:
    """One version of a registered model.

    Args:
        tenant: whose it is.
        model_id: what the tenant calls it.
        version: 1 for the first, and never given twice, not even after it was deleted.
        spec: which model, and how it is fed.
        working_dir: the folder that a relative uri starts from; None when there is none.
        description: for people.
        created_at: when it was registered.
    """

    tenant: str
    model_id: str
    version: int
    spec: ModelSpec
    working_dir: str | None
    description: str | None
    created_at: datetime


@dataclass(frozen=True)
class NamedConnection:
    """A database that jobs name instead of writing out how to reach it.

    Args:
        tenant: whose it is.
        name: what the tenant calls it.
        uri: how to reach it, with its password; never shown.
        description: for people.
        created_at, updated_at: when the name was given first, and when it was given last.
    """

    tenant: str
    name: str
    uri: str = field(repr=False)
    description: str | None
    created_at: datetime
    updated_at: datetime


class Models:
    """The registered models in a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def register(
        self,
        tenant: str,
        model_id: str,
        spec: ModelSpec,
        working_dir: str | None = None,
        description: str | None = None,
    ) -> Model:
        """Register the next version of a model.

        What the newest version is already (the same spec in the same folder) is no further version: that one is
        returned, described anew when there is a description. Of many that register at once each gets a version of its
        own, or another's that is the same.
        """
        with self._database.transaction(exclusive=_REGISTERING) as connection:
            newest = self._find(connection, tenant, model_id, None)
            if newest is not None and (newest.spec, newest.working_dir) == (spec, working_dir):
                if description in (None, newest.description):
                    return newest
                connection.execute(sa.update(_models).where(*_is(newest)).values(description=description))
                return replace(newest, description=description)
            # Deleted ones count: a job's record goes on naming the version that it ran with.
            last = sa.select(sa.func.coalesce(sa.func.max(_models.c.version), 0)).where(
                _models.c.tenant == tenant, _models.c.model_id == model_id
            )
            version = connection.execute(last).scalar_one() + 1
            now = self._database.now(connection)
            model = Model(tenant, model_id, version, spec, working_dir, description, now)
            connection.execute(sa.insert(_models).values(_model_row(model)))
            return model

    def get(self, tenant: str, model_id: str, version: int | None = None) -> Model:
        """One version of a model; None is the newest.

        Raises:
            ModelUnknown: there is none.
        """
        with self._database.reading() as connection:
            found = self._find(connection, tenant, model_id, version)
        if found is None:
            raise ModelUnknown(model_id, version)
        return found

    def versions(self, tenant: str, model_id: str) -> list[Model]:
        """All versions of a model, the newest first.

        Raises:
            ModelUnknown: there is none.
        """
        with self._database.reading() as connection:
            found = self._versions(connection, tenant, model_id)
        if not found:
            raise ModelUnknown(model_id, None)
        return found

    def page(self, tenant: str, limit: int, after: str | None = None) -> list[Model]:
        """The newest version of up to `limit` models, in the order of their ids.

        Args:
            after: the id of the last model of the page before.
        """
        newest = (
            sa.select(_models.c.model_id, sa.func.max(_models.c.version).label("version"))
            .where(_models.c.tenant == tenant, _models.c.deleted_at.is_(None))
            .group_by(_models.c.model_id)
            .order_by(_models.c.model_id)
            .limit(limit)
        )
        if after is not None:
            newest = newest.where(_models.c.model_id > after)
        wanted = newest.subquery()
        query = (
            sa.select(_models)
            .join(wanted, sa.and_(_models.c.model_id == wanted.c.model_id, _models.c.version == wanted.c.version))
            .where(_models.c.tenant == tenant)
            .order_by(_models.c.model_id)
        )
        with self._database.reading() as connection:
            return [_model(row) for row in connection.execute(query)]

    def delete(self, tenant: str, model_id: str, version: int | None = None) -> None:
        """Delete one version of a model; None deletes all.

        A schedule that names no version uses the newest. What is looked at is what is there at this moment: a job that
        was planned before and is added after still runs, as it holds all that it needs of the model.

        Raises:
            ModelUnknown: there is none.
            ModelInUse: a job that is not over, or a schedule, uses it.
        """
        with self._database.transaction(exclusive=_REGISTERING) as connection:
            there = self._versions(connection, tenant, model_id)
            doomed = [model for model in there if version in (None, model.version)]
            if not doomed:
                raise ModelUnknown(model_id, version)
            numbers = {model.version for model in doomed}
            for job_id, used_id, used, _ in _active_jobs(connection, tenant):
                if used_id == model_id and used in numbers:
                    raise ModelInUse(model_id, version, job_id)
            for schedule_id, body in _schedule_bodies(connection, tenant):
                pinned = body.get("model_version")
                used = there[0].version if pinned is None else pinned
                if body.get("model_id") == model_id and used in numbers:
                    raise ModelInUse(model_id, version, schedule_id)
            now = self._database.now(connection)
            for model in doomed:
                connection.execute(sa.update(_models).where(*_is(model)).values(deleted_at=now))

    @staticmethod
    def _find(connection: sa.Connection, tenant: str, model_id: str, version: int | None) -> Model | None:
        query = sa.select(_models).where(
            _models.c.tenant == tenant, _models.c.model_id == model_id, _models.c.deleted_at.is_(None)
        )
        if version is not None:
            query = query.where(_models.c.version == version)
        row = connection.execute(query.order_by(_models.c.version.desc()).limit(1)).first()
        return None if row is None else _model(row)

    @staticmethod
    def _versions(connection: sa.Connection, tenant: str, model_id: str) -> list[Model]:
        query = sa.select(_models).where(
            _models.c.tenant == tenant, _models.c.model_id == model_id, _models.c.deleted_at.is_(None)
        )
        return [_model(row) for row in connection.execute(query.order_by(_models.c.version.desc()))]


class Connections:
    """The named connections in a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, tenant: str, name: str, uri: str, description: str | None = None) -> NamedConnection:
        """Give a name to a connection, in place of what the name stood for before."""
        with self._database.transaction() as connection:
            now = self._database.now(connection)
            made = NamedConnection(tenant, name, uri, description, now, now)
            insert = self._database.upsert(_connections).values(**asdict(made))
            changes = {column: insert.excluded[column] for column in ("uri", "description", "updated_at")}
            put = insert.on_conflict_do_update(index_elements=["tenant", "name"], set_=changes)
            row = connection.execute(put.returning(_connections.c.created_at)).one()
            return replace(made, created_at=row.created_at)

    def get(self, tenant: str, name: str) -> NamedConnection:
        """The connection of a name.

        Raises:
            ConnectionUnknown: there is none.
        """
        query = sa.select(_connections).where(_connections.c.tenant == tenant, _connections.c.name == name)
        with self._database.reading() as connection:
            row = connection.execute(query).first()
        if row is None:
            raise ConnectionUnknown(name)
        return NamedConnection(**row._mapping)

    def page(self, tenant: str, limit: int, after: str | None = None) -> list[NamedConnection]:
        """Up to `limit` connections, in the order of their names.

        Args:
            after: the name of the last connection of the page before.
        """
        query = sa.select(_connections).where(_connections.c.tenant == tenant)
        if after is not None:
            query = query.where(_connections.c.name > after)
        with self._database.reading() as connection:
            rows = connection.execute(query.order_by(_connections.c.name).limit(limit))
            return [NamedConnection(**row._mapping) for row in rows]

    def delete(self, tenant: str, name: str) -> None:
        """Forget a connection.

        What is looked at is what is there at this moment; a job that is added after fails when it starts.

        Raises:
            ConnectionUnknown: there is none.
            ConnectionInUse: a job that is not over, or a schedule, names it.
        """
        with self._database.transaction() as connection:
            mine = sa.and_(_connections.c.tenant == tenant, _connections.c.name == name)
            if connection.execute(sa.select(_connections.c.name).where(mine).with_for_update()).first() is None:
                raise ConnectionUnknown(name)
            for job_id, _, _, spec in _active_jobs(connection, tenant):
                if name in _named(json.loads(spec)):
                    raise ConnectionInUse(name, job_id)
            for schedule_id, body in _schedule_bodies(connection, tenant):
                if name in _named(body):
                    raise ConnectionInUse(name, schedule_id)
            connection.execute(sa.delete(_connections).where(mine))


def _active_jobs(connection: sa.Connection, tenant: str) -> Iterator[tuple[str, str | None, int | None, str]]:
    """Id, model, version and spec of each job of the service that is not over."""
    jobs = tables.jobs.c
    query = sa.select(jobs.id, jobs.model_id, jobs.model_version, jobs.spec).where(
        jobs.managed, jobs.status.in_(ACTIVE), jobs.tenant == tenant
    )
    for row in connection.execute(query):
        yield row.id, row.model_id, row.model_version, row.spec


def _schedule_bodies(connection: sa.Connection, tenant: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    schedules = tables.schedules.c
    for row in connection.execute(sa.select(schedules.id, schedules.job).where(schedules.tenant == tenant)):
        yield row.id, json.loads(row.job)


def _named(body: Mapping[str, Any]) -> set[str]:
    """The connections that a job's spec, or what is asked for in JSON, names."""
    parts = [part for part in (body.get("input"), body.get("output")) if isinstance(part, Mapping)]
    return {part["connection"] for part in parts if isinstance(part.get("connection"), str)}


def _is(model: Model) -> "tuple[sa.ColumnElement[bool], ...]":
    return (
        _models.c.tenant == model.tenant,
        _models.c.model_id == model.model_id,
        _models.c.version == model.version,
    )


def _model_row(model: Model) -> dict[str, Any]:
    values = {name: getattr(model, name) for name in ("tenant", "model_id", "version", "working_dir", "description")}
    return {**values, "created_at": model.created_at, "spec": json.dumps(asdict(model.spec))}


def _model(row: "sa.Row[Any]") -> Model:
    spec = ModelSpec.from_json(json.loads(row.spec))
    return Model(row.tenant, row.model_id, row.version, spec, row.working_dir, row.description, row.created_at)
