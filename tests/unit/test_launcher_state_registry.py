"""Models and connections in SQLite, and the same in PostgreSQL."""

from tests.contract.databases import InPostgres, InSqlite
from tests.contract.registry import ConnectionsContract, ModelsContract


class TestModelsInSqlite(InSqlite, ModelsContract):
    pass


class TestModelsInPostgres(InPostgres, ModelsContract):
    pass


class TestConnectionsInSqlite(InSqlite, ConnectionsContract):
    pass


class TestConnectionsInPostgres(InPostgres, ConnectionsContract):
    pass
