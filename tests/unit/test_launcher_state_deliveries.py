"""Webhooks that wait in SQLite, and the same in PostgreSQL."""

from tests.contract.databases import InPostgres, InSqlite
from tests.contract.deliveries import DeliveriesContract


class TestSqlite(InSqlite, DeliveriesContract):
    pass


class TestPostgres(InPostgres, DeliveriesContract):
    pass
