"""Names of tables, as users write them and as databases keep them."""

import re
from dataclasses import dataclass

_NAME = r'"(?:[^"]|"")+"|[^\W\d][\w$]*'
_TABLE_NAME = re.compile(rf"(?:(?P<schema>{_NAME})\.)?(?P<table>{_NAME})")


@dataclass(frozen=True)
class PostgresTable:
    """A table by schema and name, as PostgreSQL keeps them; its text is what SQL understands in any setting."""

    schema: str
    name: str

    def __str__(self) -> str:
        return f"{quoted(self.schema)}.{quoted(self.name)}"


def split_name(written: str) -> tuple[str | None, str] | None:
    """Schema, where there is one, and table, as PostgreSQL keeps what is written in SQL; None when it is no name."""
    match = _TABLE_NAME.fullmatch(written)
    if match is None:
        return None
    return _unquoted(match["schema"]) if match["schema"] else None, _unquoted(match["table"])


def quoted(name: str) -> str:
    """`name` as SQL takes it literally."""
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


def folded(name: str) -> str:
    """`name` in lower case as databases do it without quotes: ASCII letters only."""
    return re.sub("[A-Z]+", lambda match: match[0].lower(), name)


def _unquoted(written: str) -> str:
    return written[1:-1].replace('""', '"') if written.startswith('"') else folded(written)
