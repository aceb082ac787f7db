"""Servers that tests share. A machine that lacks one skips its tests, except in CI, where they fail."""

import os
import signal
from collections.abc import Iterator
from typing import NoReturn

import pytest

from tests.servers import Postgres, ServerMissing, postgres_server

# A shell that starts us in the background has Ctrl-C ignored, which programs inherit: tests that press it would wait.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def lacking(reason: str) -> NoReturn:
    """Skip the test that needs what this machine lacks; in CI, fail it."""
    if os.environ.get("CI"):
        pytest.fail(f"in CI nothing may be missing: {reason}", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One PostgreSQL server for all tests; each takes a `database()` of its own."""
    try:
        with postgres_server() as server:
            yield server
    except ServerMissing as missing:
        lacking(str(missing))


@pytest.fixture
def database(postgres: Postgres) -> str:
    """URI of a fresh PostgreSQL database."""
    return postgres.database()
