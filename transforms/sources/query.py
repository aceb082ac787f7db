"""What can be said of a query by reading it: that it is one statement, that it only reads, and which tables."""

from collections.abc import Sequence
from typing import Any

import sqlglot
from sqlglot import Token, TokenType, exp
from sqlglot.dialects.dialect import Dialect as Grammar
from sqlglot.errors import SqlglotError
from sqlglot.optimizer.scope import traverse_scope

from transforms.connection import Dialect
from transforms.errors import InputError

# How a statement that only reads begins.
_READS = {"SELECT", "WITH", "VALUES", "TABLE", "("}
_QUERIES = (exp.Select, exp.SetOperation, exp.Subquery, exp.Values)
_WRITES = (
    exp.Insert,
    exp.Update,
    exp.Delete,
    exp.Merge,
    exp.Create,
    exp.Drop,
    exp.Alter,
    exp.TruncateTable,
    exp.Copy,
    exp.Pragma,
    exp.Attach,
    exp.Detach,
    exp.Command,
)
# The schema of a table that is named without one.
_DEFAULT_SCHEMA: dict[Dialect, str] = {"postgres": "public", "sqlite": "main"}


def check_query(query: str, dialect: Dialect) -> None:
    """Demand one statement that only reads; a trailing semicolon and comments are fine.

    A single SELECT that the parser does not know passes: the read-only connection has the last word.

    Raises:
        InputError: says what is wrong and what to give instead.
    """
    statement = bare(query, dialect)
    parsed = _parse(statement, dialect)
    if parsed is None:
        return
    if parsed.find(exp.Into):
        raise InputError("input.query writes a table by SELECT … INTO; leave INTO out")
    # PostgreSQL refuses them by itself, and has operators that look like them.
    if dialect == "sqlite" and parsed.find(exp.Placeholder, exp.Parameter):
        raise InputError("input.query has parameters; write their values into it")
    for node in parsed.walk():
        if isinstance(node, _WRITES) or (node is parsed and not isinstance(node, _QUERIES)):
            raise InputError(f"input.query holds {_named(node.key)}; give one SELECT that only reads")


def bare(query: str, dialect: Dialect) -> str:
    """The one statement of `query`, without comments and semicolons around it, to be put into other statements.

    Raises:
        InputError: there is not exactly one, or it does not begin as a query does.
    """
    try:
        tokens = Grammar.get_or_raise(dialect).tokenize(query)
    except SqlglotError as error:
        raise InputError(f"input.query cannot be read as SQL: {' '.join(str(error).split())}") from error
    statements = _statements(tokens)
    if not statements:
        raise InputError("input.query is empty; give one SELECT")
    if len(statements) > 1:
        raise InputError(f"input.query holds {len(statements)} statements; give one SELECT")
    first, last = statements[0][0], statements[0][-1]
    if first.text.upper() not in _READS:
        raise InputError(f"input.query holds {_named(first.text)}; give one SELECT that only reads")
    return query[first.start : last.end + 1]


def tables_read(query: str, dialect: Dialect) -> set[str]:
    """The tables that `query` names, as `table` or `schema.table`; common table expressions are not tables.

    Names without quotes are in lower case, as are all of SQLite's. What a view reads is not seen. Of a statement that
    the parser does not know these are all names, columns included.

    Raises:
        InputError: as `bare`.
    """
    statement = bare(query, dialect)
    parsed = _parse(statement, dialect)
    if parsed is None:
        return _all_names(Grammar.get_or_raise(dialect).tokenize(statement), dialect)
    tables = {
        source for scope in traverse_scope(parsed) for source in scope.sources.values() if isinstance(source, exp.Table)
    }
    return {
        ".".join(_folded(part.name, part.args["quoted"], dialect) for part in table.parts)
        for table in tables
        if all(isinstance(part, exp.Identifier) for part in table.parts)
    }


def reads_table(query: str, dialect: Dialect, table: str) -> bool:
    """Whether `query` names `table`, its name as the database has it; without a schema the default one is meant.

    Raises:
        InputError: as `bare`.
    """
    default = _DEFAULT_SCHEMA[dialect] + "."
    wanted = (table.lower() if dialect == "sqlite" else table).removeprefix(default)
    return wanted in {name.removeprefix(default) for name in tables_read(query, dialect)}


def _statements(tokens: Sequence[Token]) -> list[list[Token]]:
    statements: list[list[Token]] = [[]]
    for token in tokens:
        if token.token_type is TokenType.SEMICOLON:
            statements.append([])
        else:
            statements[-1].append(token)
    return [statement for statement in statements if statement]


def _parse(statement: str, dialect: Dialect) -> Any:
    """The statement as a tree, or None where the parser does not know enough of the dialect.

    Raises:
        InputError: it is nested deeper than the parser follows.
    """
    try:
        return sqlglot.parse_one(statement, read=dialect)
    except SqlglotError:
        return None
    except RecursionError:
        raise InputError("input.query is nested too deep to be read; write it flatter, as with WITH") from None


def _all_names(tokens: Sequence[Token], dialect: Dialect) -> set[str]:
    """Every name in a statement, those of columns included."""
    names, after_dot = [""], False
    for token in tokens:
        if token.token_type is TokenType.DOT:
            names[-1] += "."
            after_dot = True
        else:
            name = _folded(token.text, token.token_type is TokenType.IDENTIFIER, dialect)
            names[-1:] = [names[-1] + name] if after_dot else [names[-1], name]
            after_dot = False
    return set(names) - {""}


def _folded(name: str, quoted: bool, dialect: Dialect) -> str:
    return name if quoted and dialect == "postgres" else name.lower()


def _named(keyword: str) -> str:
    word = keyword.upper()
    return f"{'an' if word[:1] in 'AEIOU' else 'a'} {word}"


def folded(table_name: str, dialect: str) -> str:
    """A table's name as the database has it. SQLite takes the whole of it literally, in any case."""
    if dialect == "sqlite":
        return table_name
    try:
        parts = sqlglot.exp.to_table(table_name, dialect=dialect).parts
    except sqlglot.errors.SqlglotError:
        return table_name
    return ".".join(part.name if part.args.get("quoted") else part.name.lower() for part in parts)
