import pytest

from transforms.connection import Dialect
from transforms.errors import InputError
from transforms.sources.query import bare, check_query, reads_table, tables_read

BOTH: tuple[Dialect, ...] = ("postgres", "sqlite")


@pytest.mark.parametrize("dialect", BOTH)
@pytest.mark.parametrize(
    "query",
    [
        "SELECT 1",
        "SELECT 1;",
        "SELECT 1 ; ; -- done\n",
        "-- the customers; all of them\nSELECT ';' AS a /* ; */",
        "SELECT 1 -- it's",
        "WITH x AS (SELECT 1 AS a) SELECT * FROM x",
        "VALUES (1), (2)",
        "(SELECT 1) UNION ALL SELECT 2",
        "SELECT 1 INTERSECT SELECT 2 ORDER BY 1 LIMIT 3",
        "SELECT \"delete\", replace(a, 'x', 'y') FROM \"update\"",
    ],
)
def test_one_statement_that_reads_passes(query: str, dialect: Dialect) -> None:
    check_query(query, dialect)


@pytest.mark.parametrize(
    ("dialect", "query"),
    [
        ("postgres", "SELECT $$;$$, $a$ ; $a$, E'\\';'"),
        ("postgres", "/* nested /* ; */ ; */ SELECT 1"),
        ("postgres", "TABLE customers"),
        ("postgres", "SELECT a @> b, @x, c ? 'k' FROM t"),
        ("sqlite", "SELECT [a;b] FROM `c;d`"),
    ],
)
def test_each_dialects_own_words_are_understood(query: str, dialect: Dialect) -> None:
    check_query(query, dialect)


@pytest.mark.parametrize("dialect", BOTH)
def test_what_the_parser_does_not_know_is_left_to_the_database(dialect: Dialect) -> None:
    check_query("SELECT insert FROM t", dialect)


@pytest.mark.parametrize("dialect", BOTH)
@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        ("", "is empty; give one SELECT"),
        (" -- nothing\n;", "is empty; give one SELECT"),
        ("SELECT 1; SELECT 2", "holds 2 statements; give one SELECT"),
        ("SELECT 1; DROP TABLE t;", "holds 2 statements; give one SELECT"),
        ("SELECT 'open", "cannot be read as SQL"),
        ("DELETE FROM t", "holds a DELETE; give one SELECT that only reads"),
        ("insert into t values (1)", "holds an INSERT"),
        ("CREATE TABLE t AS SELECT 1", "holds a CREATE"),
        ("EXPLAIN SELECT 1", "holds an EXPLAIN"),
        ("PRAGMA writable_schema = 1", "holds a PRAGMA"),
        ("ATTACH 'a.db' AS a", "holds an ATTACH"),
        ("COPY t TO '/tmp/t'", "holds a COPY"),
        ("WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x", "holds an INSERT"),
    ],
)
def test_anything_else_is_refused_with_the_remedy(query: str, complaint: str, dialect: Dialect) -> None:
    with pytest.raises(InputError) as refused:
        check_query(query, dialect)

    assert complaint in str(refused.value)
    assert str(refused.value).startswith("input.query ")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("dialect", BOTH)
@pytest.mark.parametrize(
    "query",
    [
        "SELECT " + "(" * 400 + "1" + ")" * 400,
        "SELECT " + "NOT " * 5000 + "1",
        "SELECT * FROM " + "(SELECT * FROM " * 1000 + "t" + ")" * 1000,
    ],
    ids=["parentheses", "operators", "queries"],
)
def test_what_is_nested_too_deep_is_refused_in_a_line(query: str, dialect: Dialect) -> None:
    for read in (check_query, tables_read):
        with pytest.raises(InputError, match=r"^input\.query is nested too deep to be read; write it flatter"):
            read(query, dialect)


@pytest.mark.parametrize(
    ("dialect", "query", "complaint"),
    [
        ("postgres", "WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x", "holds a DELETE"),
        ("postgres", "SELECT * FROM (WITH x AS (UPDATE t SET a = 1 RETURNING 1) SELECT 1) y", "holds an UPDATE"),
        ("postgres", "SELECT * INTO u FROM t", "leave INTO out"),
        ("postgres", "SELECT 1 UNION ALL SELECT a INTO u FROM t", "leave INTO out"),
        ("sqlite", "SELECT * FROM t WHERE a = ?", "has parameters; write their values into it"),
        ("sqlite", "SELECT * FROM t WHERE a = :name", "has parameters; write their values into it"),
    ],
)
def test_a_write_hidden_in_a_select_is_refused(query: str, complaint: str, dialect: Dialect) -> None:
    with pytest.raises(InputError, match=complaint):
        check_query(query, dialect)


@pytest.mark.parametrize("query", ["SELECT 1", "SELECT 1 ;", "/* a */ SELECT 1 -- b", "\n-- a;\nSELECT 1\n;;"])
def test_the_bare_statement_can_stand_within_another(query: str) -> None:
    assert bare(query, "postgres") == "SELECT 1"


@pytest.mark.parametrize(
    ("dialect", "query", "tables"),
    [
        ("postgres", "SELECT * FROM a, b LEFT JOIN c USING (x)", {"a", "b", "c"}),
        ("postgres", 'SELECT * FROM Public.Customers, "Sales"."Q1"', {"public.customers", "Sales.Q1"}),
        ("postgres", "WITH t AS (SELECT * FROM t) SELECT * FROM t", {"t"}),
        ("postgres", "WITH RECURSIVE r AS (SELECT 1 UNION ALL SELECT * FROM r) SELECT * FROM r", set()),
        ("postgres", "SELECT (SELECT max(x) FROM m) FROM (VALUES (1)) v WHERE EXISTS (SELECT 1 FROM n)", {"m", "n"}),
        ("postgres", "SELECT * FROM generate_series(1, 2) g, unnest(ARRAY[1]) u, LATERAL (SELECT * FROM d) x", {"d"}),
        ("postgres", "SELECT 1 FROM a UNION (SELECT 2 FROM b)", {"a", "b"}),
        ("postgres", "TABLE a", {"a"}),
        ("sqlite", 'SELECT * FROM "predictions.Scores", [A b], `c`', {"predictions.scores", "a b", "c"}),
        ("sqlite", "SELECT extract FROM t WHERE x IN (SELECT y FROM Main.U)", {"t", "main.u"}),
    ],
)
def test_the_tables_of_a_query_are_found(query: str, tables: set[str], dialect: Dialect) -> None:
    assert tables_read(query, dialect) == tables


def test_no_table_is_missed_in_a_query_that_the_parser_does_not_know() -> None:
    assert {"a.t", "B.u", "v"} <= tables_read('SELECT insert FROM a.t, "B".u JOIN v USING (x)', "postgres")


@pytest.mark.parametrize(
    ("dialect", "query", "table", "reads"),
    [
        ("postgres", "SELECT * FROM scores", "scores", True),
        ("postgres", "SELECT * FROM public.scores", "scores", True),
        ("postgres", "SELECT * FROM scores", "public.scores", True),
        ("postgres", "SELECT * FROM other.scores", "scores", False),
        ("postgres", "SELECT * FROM Scores", "scores", True),
        ("postgres", 'SELECT * FROM "Scores"', "scores", False),
        ("sqlite", "SELECT * FROM SCORES", "Scores", True),
        ("sqlite", "SELECT * FROM main.scores", "scores", True),
        ("sqlite", 'SELECT * FROM "predictions.scores"', "predictions.scores", True),
        ("sqlite", "SELECT 'scores' AS scores FROM t", "scores", False),
    ],
)
def test_a_query_that_reads_a_table_is_told_from_one_that_does_not(
    dialect: Dialect, query: str, table: str, reads: bool
) -> None:
    assert reads_table(query, dialect, table) is reads
