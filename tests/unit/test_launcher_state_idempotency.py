"""Idempotency keys in SQLite, and the same in PostgreSQL."""

from tests.contract.databases import InPostgres, InSqlite
from tests.contract.idempotency import IdempotencyContract


class TestSqlite(InSqlite, IdempotencyContract):
    pass


class TestPostgres(InPostgres, IdempotencyContract):
    pass
