"""API keys in SQLite, and the same in PostgreSQL."""

from tests.contract.databases import InPostgres, InSqlite
from tests.contract.keys import KeysContract


class TestSqlite(InSqlite, KeysContract):
    pass


class TestPostgres(InPostgres, KeysContract):
    pass
