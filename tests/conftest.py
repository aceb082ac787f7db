"""Servers that tests share. A machine that lacks one skips its tests, except in CI, where they fail."""

import os
import signal
from collections.abc import Iterator
from typing import NoReturn

import pytest

from tests.servers import Postgres, ServerMissing, postgres_server

# What is ignored, programs inherit: Ctrl-C in what a shell started in the background, the terminal's end under nohup.
# Tests that send these would wait for ever. What is handled, programs do not inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda number, frame: None)


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
