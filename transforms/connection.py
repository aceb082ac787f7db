"""Database connections: where a database is, opened through ADBC, named without its secrets."""

import os
import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote, urlsplit

from adbc_driver_manager import dbapi

from transforms.errors import PipelineError

Dialect = Literal["postgres", "sqlite"]

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_SCHEMES: dict[str, Dialect] = {"postgresql": "postgres", "postgres": "postgres", "sqlite": "sqlite"}
# How long a SQLite statement waits for another writer; ADBC itself does not wait at all.
SQLITE_BUSY_MS = 30_000


class ConnectionRefused(PipelineError):
    """The database cannot be reached, or does not let us in."""


@dataclass(frozen=True)
class Connection:
    """A database, by its URI as the user wrote it: `postgresql://user@host/db` or `sqlite:///file.db`.

    `${NAME}` stands for an environment variable and is expanded only when the connection is opened, in the process
    that opens it; the object, its `repr` and its pickle hold the name, never the value.
    """

    template: str

    def __repr__(self) -> str:
        return f"Connection({self.describe()!r})"

    @property
    def dialect(self) -> Dialect:
        """Which SQL the database speaks.

        Raises:
            ConnectionRefused: the scheme is not one of ours.
        """
        scheme = self.expanded().partition("://")[0]
        if scheme not in _SCHEMES:
            raise ConnectionRefused(
                f"connection {self.describe()}: scheme {scheme!r} is not known; use postgresql:// or sqlite:///"
            )
        return _SCHEMES[scheme]

    def expanded(self) -> str:
        """The URI with its variables filled in. A secret: never log it, never put it into a message.

        Raises:
            ConnectionRefused: a variable is not set.
        """

        def value(match: re.Match[str]) -> str:
            if match[1] not in os.environ:
                raise ConnectionRefused(f"connection: environment variable {match[1]} is not set")
            return os.environ[match[1]]

        return _VARIABLE.sub(value, self.template)

    def describe(self) -> str:
        """The URI as written, the password and query parameters masked."""
        head, _, tail = self.template.partition("://")
        if not tail:
            # A URI that is one variable as a whole: only its name may be shown.
            return self.template if _VARIABLE.fullmatch(self.template) else "*****"
        authority, slash, path = tail.partition("/")
        userinfo, at, host = authority.rpartition("@")
        user, colon, _ = userinfo.partition(":")
        path, question, _ = path.partition("?")
        return f"{head}://{user}{':*****' if colon else ''}{at}{host}{slash}{path}{question and '?*****'}"

    def mask(self, message: str) -> str:
        """`message` on one line and without this connection's secrets, should a driver have repeated them."""
        expanded = self.expanded()
        text = " ".join(message.split()).replace(expanded, self.describe())
        password = urlsplit(expanded).password
        for secret in {password, unquote(password)} if password else set():
            text = text.replace(secret, "*****")
        return text

    def sqlite_path(self) -> str:
        """The file of a SQLite database: `sqlite:///relative.db`, `sqlite:////absolute.db`."""
        return self.expanded().partition("://")[2].removeprefix("/")

    def open(self, *, read_only: bool = False, autocommit: bool = False) -> dbapi.Connection:
        """Connect. The caller closes.

        Args:
            read_only: every statement that would write fails.
            autocommit: each statement commits by itself; otherwise the caller commits.

        Raises:
            ConnectionRefused: names the database and the driver's reason, never the password.
        """
        dialect = self.dialect
        try:
            if dialect == "postgres":
                return self._open_postgres(read_only, autocommit)
            return self._open_sqlite(read_only, autocommit)
        except dbapi.Error as error:
            raise ConnectionRefused(f"connection {self.describe()}: {self.mask(str(error))}") from error

    def _open_postgres(self, read_only: bool, autocommit: bool) -> dbapi.Connection:
        import adbc_driver_postgresql.dbapi

        connection = adbc_driver_postgresql.dbapi.connect(self.expanded(), autocommit=True)
        with connection.cursor() as cursor:
            cursor.execute("SET application_name = 'penstock'")
            if read_only:
                cursor.execute("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY, ISOLATION LEVEL REPEATABLE READ")
        connection.adbc_connection.set_autocommit(autocommit)
        return connection

    def _open_sqlite(self, read_only: bool, autocommit: bool) -> dbapi.Connection:
        import adbc_driver_sqlite.dbapi

        path = self.sqlite_path()
        if read_only and not os.path.exists(path):
            raise ConnectionRefused(f"connection {self.describe()}: there is no file {path}")
        connection = adbc_driver_sqlite.dbapi.connect(path, autocommit=True)
        with connection.cursor() as cursor:
            cursor.execute(f"PRAGMA busy_timeout = {SQLITE_BUSY_MS}")
            if read_only:
                cursor.execute("PRAGMA query_only = ON")
        connection.adbc_connection.set_autocommit(autocommit)
        return connection
