"""A job store with a past: many jobs that ended in the last days, put in at once."""

import itertools
import json
import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from launcher.state import tables
from launcher.state.job import Job, Seconds, Status
from launcher.state.sql import SqlJobStore
from pipelines.spec import JobSpec, ParquetInput, ParquetOutput
from predictors.base import ModelSpec
from transforms.counts import Counts

# Younger than what a service deletes by itself.
DAYS = 6
MODELS = tuple(f"churn-{n}" for n in range(10))
TENANT = "default"
ROWS = 500_000
# Of a hundred jobs: how they ended.
_ENDS: tuple[Status, ...] = ("completed",) * 90 + ("failed",) * 8 + ("cancelled",) * 2
_WAY: tuple[Status, ...] = ("preparing", "running", "completing")
_SEED = 5
_AT_ONCE = 5_000


def fill(store: SqlJobStore, jobs: int) -> list[str]:
    """Add jobs that ended, the oldest first. Returns their ids."""
    rng = random.Random(_SEED)
    first = datetime.now(UTC) - timedelta(days=DAYS)
    apart = timedelta(days=DAYS) / (jobs + 1)
    job_rows, move_rows = _patterns(store)
    ids = [f"batch-{rng.getrandbits(40):010x}" for _ in range(jobs)]

    def made() -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
        for n, job_id in enumerate(ids):
            status = rng.choice(_ENDS)
            created = first + n * apart
            times = {move["target"]: created + timedelta(seconds=at) for at, move in enumerate(move_rows[status])}
            job = job_rows[status] | {
                "id": job_id,
                "model_id": rng.choice(MODELS),
                "created_at": created,
                "queued_at": created,
                "started_at": times["preparing"],
                "running_at": times["running"],
                "finished_at": times[status],
                "times": json.dumps({state: at.isoformat() for state, at in times.items()}),
            }
            yield job, [move | {"job_id": job_id, "at": times[move["target"]]} for move in move_rows[status]]

    rows = made()
    while some := list(itertools.islice(rows, _AT_ONCE)):
        with store.database.transaction() as connection:
            connection.execute(sa.insert(tables.jobs), [job for job, _ in some])
            connection.execute(sa.insert(tables.moves), [move for _, moves in some for move in moves])
    return ids


def tidy(store: SqlJobStore) -> None:
    """Do what PostgreSQL does by itself within minutes, where it is allowed to."""
    if store.database.is_postgres:
        with store.database.reading() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT").exec_driver_sql("VACUUM ANALYZE")


def occupy(store: SqlJobStore, like: str, owner: str) -> None:
    """Add a job that takes the place of one at work, and takes nothing else.

    Args:
        like: a job to make it from.
        owner: a launcher that lives, or the job would be put back into the queue.
    """
    with store.database.reading() as connection:
        pattern = connection.execute(sa.select(tables.jobs).where(tables.jobs.c.id == like)).mappings().one()
    now = datetime.now(UTC)
    job = dict(pattern) | {
        "id": "batch-0000000000",
        "status": "preparing",
        "outcome": None,
        "owner": owner,
        "created_at": now,
        "queued_at": now,
        "started_at": now,
        "running_at": None,
        "finished_at": None,
        "deadline_at": None,
        "lease_until": now + timedelta(days=1),
    }
    with store.database.transaction() as connection:
        connection.execute(sa.insert(tables.jobs), [job])


def _patterns(store: SqlJobStore) -> tuple[dict[Status, dict[str, Any]], dict[Status, list[dict[str, Any]]]]:
    """For each end a job's row and its moves, as the store itself writes them."""
    spec = JobSpec(
        ModelSpec("/models/churn.onnx", "onnx", ("tenure", "monthly_charges", "total_charges")),
        ParquetInput(("/data/customers/*.parquet",)),
        ParquetOutput("/data/scores", "overwrite", ("customer_id",)),
    )
    job_rows: dict[Status, dict[str, Any]] = {}
    move_rows: dict[Status, list[dict[str, Any]]] = {}
    for end in dict.fromkeys(_ENDS):
        job = Job("batch-pattern", spec, "/work", datetime.now(UTC), tenant=TENANT, managed=True, model_version=1)
        store.add(replace(job, name="nightly churn", labels={"team": "growth"}, total_rows=ROWS), "submitted")
        way = _WAY if end == "completed" else _WAY[:2]
        for to in way:
            store.move(job.id, store.get(job.id).status, to, f"on to {to}")
        store.move(
            job.id,
            way[-1],
            end,
            "500,000 rows were scored" if end == "completed" else "the destination is away",
            outcome="clean" if end == "completed" else "error" if end == "failed" else None,
            error="the destination is away" if end == "failed" else None,
            counts=Counts(ROWS),
            seconds=Seconds(1.0, 1.0, 1.0, 0.5, 0.5, 0.5),
            output="/data/scores",
        )
        with store.database.reading() as connection:
            row = connection.execute(sa.select(tables.jobs).where(tables.jobs.c.id == job.id)).mappings().one()
            moves = sa.select(tables.moves).where(tables.moves.c.job_id == job.id).order_by(tables.moves.c.n)
            job_rows[end] = dict(row)
            move_rows[end] = [dict(move) for move in connection.execute(moves).mappings()]
        store.delete(job.id, [end])
    return job_rows, move_rows
