"""Database connections: where a database is, named without its secrets. `transforms.opening` opens it."""

import os
import re
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote, unquote, urlsplit

from transforms.errors import ConnectionRefused

Dialect = Literal["postgres", "sqlite"]

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_SCHEMES: dict[str, Dialect] = {"postgresql": "postgres", "postgres": "postgres", "sqlite": "sqlite"}
# What may stand in a URI's user or password as it is (RFC 3986, 3.2.1), escapes included.
_ENCODED = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:]|%[0-9A-Fa-f]{2})*")
_MASK = "*****"
# A host that swallows packets would hold a connection attempt for minutes.
CONNECT_TIMEOUT_S = 10


@dataclass(frozen=True)
class Connection:
    """A database, by its URI as the user wrote it: `postgresql://user@host/db` or `sqlite:///file.db`.

    `${NAME}` stands for an environment variable and is expanded only when the connection is opened, in the process
    that opens it; the object, its `repr` and its pickle hold the name, never the value. In the place of a user or a
    password the value may hold any characters: what a URI would not bear there is percent-encoded.

    Args:
        template: the URI.
        pinned: the path of a SQLite database is one without links, and only the file that lies at that very place is
            opened. Someone may put a link there at any moment, so it is what was opened that is looked at, and nothing
            is read of it before. Nor is a journal undone that names another file, for SQLite would remove that.
            Not covered: a folder above the file that is exchanged in the moment in which a database, only then turned
            to WAL, opens its log, or in which a journal is made; and, where it is opened to write, a journal that is
            exchanged between the look at it and SQLite's own.
    """

    template: str
    pinned: bool = False

    def __repr__(self) -> str:
        return f"Connection({self.describe()!r})"

    @property
    def dialect(self) -> Dialect:
        """Which SQL the database speaks.

        Raises:
            ConnectionRefused: the scheme is not one of ours.
        """
        scheme, found, _ = self.expanded().partition("://")
        if scheme in _SCHEMES and found:
            return _SCHEMES[scheme]
        # Without "://" there is no telling a scheme from a secret.
        wrong = f"scheme {scheme!r} is not known" if found else "this is not a URI"
        raise ConnectionRefused(f"connection {self.describe()}: {wrong}; use postgresql://… or sqlite:///…")

    def fault(self) -> str | None:
        """What is wrong with the form of a PostgreSQL URI, as far as that shows before its variables are filled in.

        The rest of a sentence, with the remedy, and without any secret.
        """
        return uri_fault(_VARIABLE.sub("x", self.template))

    def expanded(self) -> str:
        """The URI with its variables filled in. A secret: never log it, never put it into a message.

        Raises:
            ConnectionRefused: a variable is not set.
        """
        before, after = self._userinfo()
        return _VARIABLE.sub(lambda match: _encode(_value(match)), before) + _VARIABLE.sub(_value, after)

    def describe(self) -> str:
        """The URI as written, the password and query parameters masked."""
        head, found, tail = self.template.partition("://")
        if not found:
            # A URI that is one variable as a whole: only its name may be shown.
            name = _VARIABLE.match(self.template)
            return _MASK if name is None else name[0] + (_MASK if name.end() < len(self.template) else "")
        if _SCHEMES.get(head) == "sqlite":
            return self.template
        before, question, query = tail.partition("?")
        if "@" not in before and "@" in query:
            # The question mark may belong to an unencoded password.
            return f"{head}://{_MASK}"
        userinfo, at, place = before.rpartition("@")
        user, colon, _ = userinfo.partition(":")
        return f"{head}://{user}{colon and ':' + _MASK}{at}{place}{question and '?' + _MASK}"

    def mask(self, message: str) -> str:
        """`message` on one line and without this connection's secrets, should a driver have repeated them."""
        text = " ".join(message.split())
        try:
            expanded = self.expanded()
        except ConnectionRefused:
            return text
        shown = {expanded: self.describe()} | dict.fromkeys(
            sorted(self._secrets(expanded), key=len, reverse=True), _MASK
        )
        for secret, mask in shown.items():
            # On one line blanks are not as they were.
            text = text.replace(secret, mask).replace(" ".join(secret.split()) or secret, mask)
        return text

    def reason(self, error: Exception) -> str:
        """What the database said, on one line, without the driver's own words around it and without secrets."""
        text = str(error)
        # PostgreSQL: "INVALID_ARGUMENT: [libpq] Failed to …: ERROR:  reason\nLINE 1: …\n\nQuery was: …. SQLSTATE: …"
        text = re.sub(r"^.*?(?:ERROR|FATAL):  ", "", text, count=1, flags=re.DOTALL)
        text = re.sub(r"\nLINE \d+: .*?\n *\^", "", text, flags=re.DOTALL)
        text = re.sub(r"\s*(?:\n\s*Query was: .*)?\.? SQLSTATE: \w+$", "", text, flags=re.DOTALL)
        # SQLite: "INVALID_ARGUMENT: [SQLite] Failed to prepare query: reason\nquery: …"
        text = re.sub(r"\nquery: .*$", "", text, flags=re.DOTALL)
        text = re.sub(r"^[A-Z_]+: (?:\[\w+\] )?(?:Failed to (?:prepare|execute|step) query: )?", "", text)
        return self.mask(text)

    def sqlite_path(self) -> str:
        """The file of a SQLite database: `sqlite:///relative.db`, `sqlite:////absolute.db`."""
        return self.expanded().partition("://")[2].removeprefix("/")

    def database(self) -> tuple[object, ...]:
        """What tells one database from another of the same dialect; who logs in does not matter."""
        if self.dialect == "sqlite":
            return (os.path.realpath(self.sqlite_path()),)
        uri = urlsplit(self.expanded())
        # Who names no database gets the one of the user's name.
        return (uri.hostname, uri.port or 5432, uri.path.strip("/") or uri.username, uri.query)

    def open(
        self, *, read_only: bool = False, autocommit: bool = False, connect_timeout_s: int = CONNECT_TIMEOUT_S
    ) -> Any:
        """Connect. The caller closes the connection, an `adbc_driver_manager.dbapi.Connection`.

        Args:
            read_only: every statement that would write fails; in PostgreSQL, all statements of a transaction also see
                the database as it was at the first of them, as they do in SQLite anyway.
            autocommit: each statement commits by itself; otherwise the caller commits.
            connect_timeout_s: how long each address of a server may take to let us in; at least 1. What the URI or
                the environment says comes before it.

        Raises:
            ConnectionRefused: names the database and the driver's reason, never the password.
        """
        # With Arrow's datasets, and pandas and polars where they are, the drivers take a second to import.
        from transforms.opening import opened

        return opened(self, read_only=read_only, autocommit=autocommit, connect_timeout_s=connect_timeout_s)

    def _userinfo(self) -> tuple[str, str]:
        """The template cut in front of the `@` that ends its user and password; the first part is empty without one."""
        start = self.template.find("://") + 3
        question = self.template.find("?")
        at = self.template.rfind("@", 0, question if question >= 0 else len(self.template))
        return (self.template[:at], self.template[at:]) if 3 <= start <= at else ("", self.template)

    def _secrets(self, expanded: str) -> set[str]:
        before, question, query = expanded.partition("://")[2].partition("?")
        passwords = {before.rpartition("@")[0].partition(":")[2]}
        if "@" in query:
            passwords.add(f"{before}{question}{query}".rpartition("@")[0].partition(":")[2])
        for parameter in query.split("&"):
            name, _, value = parameter.partition("=")
            if "password" in name:
                passwords.add(value)
        userinfo = self._userinfo()[0].partition("://")[2].partition(":")[2]
        passwords |= {os.environ.get(match[1], "") for match in _VARIABLE.finditer(userinfo)}
        passwords |= {unquote(password) for password in passwords}
        # A driver that cuts an unencoded password at one of these repeats a piece of it.
        pieces = {piece for password in passwords for piece in re.split("[@/?#:&]", password) if len(piece) > 2}
        return (passwords | pieces) - {""}


def set_postgres(for_session: bool, **settings: str) -> str:
    """A SELECT that gives a PostgreSQL session, or the transaction it runs in, our settings.

    One of them is always among them: a server whose client was killed notices within a second, rather than at the end
    of its statement (PostgreSQL 14, on Linux).

    Args:
        for_session: whether they outlive the transaction.
        settings: further ones, by name.
    """
    checks = "client_connection_check_interval"
    values = ", ".join(f"('{name}', '{value}')" for name, value in {**settings, checks: "1s"}.items())
    return f"""
        SELECT set_config(name, value, {"false" if for_session else "true"})
        FROM (VALUES {values}) AS wanted (name, value)
        WHERE name <> '{checks}'
           OR current_setting('server_version_num')::int >= 140000 AND version() LIKE '%linux%'
    """


def uri_fault(uri: str) -> str | None:
    """What libpq would misread in a URI of PostgreSQL: it takes the first `@` or `/` for the end of the password."""
    scheme, found, rest = uri.partition("://")
    if _SCHEMES.get(scheme) != "postgres" or not found:
        return None
    place = rest.partition("?")[0]
    userinfo, at, _ = place.rpartition("@")
    if not at:
        userinfo, at, _ = rest.rpartition("@")
        # What stands behind a question mark may be a parameter with an `@` in it.
        if not at or ":" not in userinfo.partition("?")[0] or "=" in userinfo.partition("?")[2]:
            return None
    if ":" not in userinfo.partition("/")[0]:
        # Without a password: a slash begins the database, of which an `@` may be a part.
        return None
    wrong = [each for each in "@/" if each in userinfo]
    if re.search(r"%(?![0-9A-Fa-f]{2})", userinfo):
        wrong.append("%")
    if not wrong:
        return None
    written = " and ".join(f"{each} as {quote(each, safe='')}" for each in wrong)
    return f"has a password with characters of a URI's own; write {written}, or take the password from ${{NAME}}"


def _value(match: re.Match[str]) -> str:
    if match[1] not in os.environ:
        raise ConnectionRefused(f"connection: environment variable {match[1]} is not set")
    return os.environ[match[1]]


def _encode(value: str) -> str:
    """`value` for the place of a user or password; taken for encoded already when it could be."""
    return value if _ENCODED.fullmatch(value) else quote(value, safe="")
