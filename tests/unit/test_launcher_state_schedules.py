"""Schedules in SQLite, and the same in PostgreSQL."""

import re
from datetime import timedelta, timezone

from launcher.state.schedules import run_id
from tests.contract.databases import InPostgres, InSqlite
from tests.contract.schedules import THREE, TWO, SchedulesContract


class TestSqlite(InSqlite, SchedulesContract):
    pass


class TestPostgres(InPostgres, SchedulesContract):
    pass


def test_the_id_of_a_run_is_that_of_its_schedule_and_time() -> None:
    berlin = TWO.astimezone(timezone(timedelta(hours=1)))

    assert re.fullmatch("batch-[0-9a-f]{10}", run_id("sched-1", TWO))
    assert run_id("sched-1", TWO) == run_id("sched-1", berlin)
    assert len({run_id("sched-1", TWO), run_id("sched-2", TWO), run_id("sched-1", THREE)}) == 3
