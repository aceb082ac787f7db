"""PostgreSQL to PostgreSQL: Penstock against a plain ADBC loop, into a new table and over an existing one."""

from collections.abc import Callable

import pyarrow.parquet as pq
from adbc_driver_postgresql import dbapi

from benchmarks.data import Checksum, DataSet, checksum_of_batches
from benchmarks.folders import model_file, run_folder
from benchmarks.measure import Command, python
from benchmarks.models import FEATURES, ID_COLUMN, SCORE_COLUMN
from benchmarks.penstock_job import job, run_command
from benchmarks.postgres_server import PostgresMissing, postgres_server
from benchmarks.race import Program, Trial, race
from benchmarks.report import Comparison, Section, Target, compare_speed
from benchmarks.settings import Settings

METHOD = (
    "A table of id and three features → the same model, 1,000 rows a call → a table of id and score, in a PostgreSQL "
    "of its own on this machine, with a checkpoint before each run. The loop reads by ADBC, scores, and ingests by "
    "ADBC in one transaction; over an existing table (as many old rows, one unique index) it ingests into a staging "
    "table, then DELETE and INSERT…SELECT, as Penstock does."
)
RESULT_TABLE = "churn_scores"
NEW = "new table"
EXISTING = "existing table with an index"
LABELS = {NEW: "Penstock / ADBC loop, new table", EXISTING: "Penstock / ADBC loop, existing table with an index"}
TARGET = Target(0.7)


class Database:
    """The server's one database: what is scored lies in it, and the results go there."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def load(self, data: DataSet) -> str:
        """Put `data` into a table, unless it is there, and give the table's name."""
        table = f"customers_{data.rows}"
        if self._is_there(table):
            return table
        with dbapi.connect(self.uri) as connection, connection.cursor() as cursor:
            for file in sorted(data.folder.glob("*.parquet")):
                cursor.adbc_ingest(table, pq.read_table(file), mode="create_append")
            connection.commit()
        # Sets the hint bits too, which else the first reader would have to write.
        self.execute(f"VACUUM ANALYZE {table}")
        return table

    def without_result(self) -> None:
        """Leave no result table."""
        self.execute(f"DROP TABLE IF EXISTS {RESULT_TABLE}", "CHECKPOINT")

    def with_old_result(self, rows_table: str) -> None:
        """Leave a result table with one unique index and an old score for each row, and no dead rows."""
        self.execute(
            f"DROP TABLE IF EXISTS {RESULT_TABLE}",
            f"CREATE TABLE {RESULT_TABLE} AS SELECT {ID_COLUMN}, 0::real AS {SCORE_COLUMN} FROM {rows_table}",
            f"CREATE UNIQUE INDEX ON {RESULT_TABLE} ({ID_COLUMN})",
            f"VACUUM ANALYZE {RESULT_TABLE}",
            "CHECKPOINT",
        )

    def result(self) -> Checksum:
        """Add up the result table."""
        with dbapi.connect(self.uri) as connection, connection.cursor() as cursor:
            cursor.execute(f"SELECT {ID_COLUMN}, {SCORE_COLUMN} FROM {RESULT_TABLE}")
            return checksum_of_batches(cursor.fetch_record_batch())

    def execute(self, *statements: str) -> None:
        """Run each of `statements` outside of a transaction, as VACUUM demands."""
        with dbapi.connect(self.uri, autocommit=True) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def _is_there(self, table: str) -> bool:
        with dbapi.connect(self.uri) as connection, connection.cursor() as cursor:
            cursor.execute(f"SELECT to_regclass('{table}') IS NOT NULL")
            row = cursor.fetchone()
            return bool(row and row[0])


def _program(name: str, database: Database, settings: Settings, destination: str, penstock: bool) -> Program:
    def trial(rows: int) -> Trial:
        data = DataSet(rows)
        data.make()
        table = database.load(data)
        folder = run_folder(name, rows)

        def loop_command() -> list[str]:
            existing = ["--existing"] if destination == EXISTING else []
            return python("postgres_loop", database.uri, table, model_file(), RESULT_TABLE, *existing)

        def penstock_command() -> list[str]:
            query = f"SELECT {', '.join([ID_COLUMN, *FEATURES])} FROM {table}"
            spec = job(
                {"source": "sql", "connection": database.uri, "query": query},
                {"destination": "table", "connection": database.uri, "table_name": RESULT_TABLE},
                folder / "rejects",
                settings.parallelism,
            )
            return run_command(spec, folder)

        command: Callable[[], Command] = penstock_command if penstock else loop_command
        return Trial(
            rows=rows,
            folder=folder,
            commands=lambda: [command()],
            result=database.result,
            expected=data.reference(),
            prepare=database.without_result if destination == NEW else lambda: database.with_old_result(table),
        )

    return Program(name, trial(settings.tables.small), trial(settings.tables.large), settings.rounds)


def measure(settings: Settings) -> Section:
    """Race Penstock and the loop on a PostgreSQL of their own."""
    section = Section("PostgreSQL → PostgreSQL", METHOD)
    try:
        with postgres_server() as uri:
            database = Database(uri)
            programs = [
                _program(f"{program}, {destination}", database, settings, destination, penstock=program == "Penstock")
                for destination in (NEW, EXISTING)
                for program in (["ADBC loop", "Penstock"] if settings.with_penstock else ["ADBC loop"])
            ]
            timings = race(programs, settings.patience_s)
            section.notes.append(database_version(uri))
    except PostgresMissing as error:
        section.comparisons = [Comparison(label, None, TARGET, str(error)) for label in LABELS.values()]
        return section
    section.timings = list(timings.values())
    section.comparisons = [
        compare_speed(label, timings.get(f"Penstock, {destination}"), timings[f"ADBC loop, {destination}"], TARGET)
        for destination, label in LABELS.items()
    ]
    return section


def database_version(uri: str) -> str:
    """What the server says it is."""
    with dbapi.connect(uri) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT version()")
        row = cursor.fetchone()
        return str(row[0]) if row else "unknown server"
