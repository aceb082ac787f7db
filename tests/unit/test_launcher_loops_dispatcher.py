"""The dispatcher: which jobs it starts, with what, and what becomes of those that it cannot start."""

import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from launcher.errors import ConnectionUnknown, ForkFailed, HomeUnusable, HostUnknown, StoreUnavailable
from launcher.forks.forking import Task
from launcher.loops.dispatcher import Dispatcher
from launcher.loops.reaper import Reaper
from launcher.settings import Settings
from launcher.state.job import Job
from launcher.worker.handover import Handover
from tests.contract.job_store import T0
from tests.unit.launcher_parts import NOBODY, OWNER, PATIENCE_S, FakeForks, Parts, parts

SECRET = "postgresql://sales:hush@192.0.2.7/sales"


@dataclass
class Dispatching:
    parts: Parts
    forks: FakeForks = field(default_factory=FakeForks)
    settings: Settings = field(default_factory=lambda: Settings(retry_wait_s=10.0))
    uris: Mapping[str, str] = field(default_factory=lambda: {"sales": SECRET})
    refusal: Exception | None = None
    # Of these tenants the hosts are not known until it is set.
    slow: tuple[str, ...] = ()
    known: threading.Event = field(default_factory=threading.Event)
    woken: threading.Event = field(default_factory=threading.Event)
    now: float = 0.0

    def made(self, owner: str = OWNER, lookup_s: float = PATIENCE_S, **settings: Any) -> Dispatcher:
        def connections_of(job: Job) -> Mapping[str, str]:
            if job.tenant in self.slow:
                assert self.known.wait(PATIENCE_S)
            if self.refusal is not None:
                raise self.refusal
            return self.uris

        return Dispatcher(
            self.parts.home,
            self.parts.store,
            self.forks,
            replace(self.settings, **settings),
            owner,
            connections_of,
            lambda tenant: (f"/data/{tenant}",),
            "tests.light",
            machine="host",
            launcher_lives=lambda owner: owner != "host-dead",
            wake=self.woken.set,
            lookup_s=lookup_s,
            clock=lambda: self.now,
        )

    def add(self, job_id: str = "batch-1", **changes: Any) -> None:
        self.parts.add(job_id, **changes)

    def job(self, job_id: str = "batch-1") -> Job:
        return self.parts.store.get(job_id)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Dispatching]:
    with parts(tmp_path) as made:
        world = Dispatching(made)
        yield world
        world.forks.let_go()


# --- starting ----------------------------------------------------------------------------------------------------


def test_a_job_is_started_with_all_that_it_needs(world: Dispatching) -> None:
    world.settings = replace(
        world.settings, max_input_rows=500, job_environment={"PATH": "/bin"}, store_url="sqlite:///x"
    )
    world.add(tenant="acme")
    assert world.made().tick() == 1
    (task,) = world.forks.tasks
    arguments = dict(task.arguments)
    tenant = arguments.pop("tenant")
    folder = world.parts.home.job("batch-1")

    assert task == Task(
        "launcher.worker.jobprocess:run_forked",
        task.arguments,
        str(folder.path),
        {"PATH": "/bin", "PENSTOCK_JOB_ID": "batch-1"},
        str(folder.log),
        keeps_log=True,
    )
    assert tenant == "acme"
    assert Handover.from_json(arguments) == Handover(
        home=str(world.parts.home.path),
        job_id="batch-1",
        attempt=1,
        store_url="sqlite:///x",
        connections={"sales": SECRET},
        allowed_paths=("/data/acme",),
        lease_s=30.0,
        first_wait_s=10.0,
        max_input_rows=500,
        attempt_module="tests.light",
    )


def test_no_secret_is_in_a_handovers_repr() -> None:
    handover = Handover("/home", "batch-1", 1, "postgresql://penstock:hush@db/jobs", {"sales": SECRET})

    assert "hush" not in repr(handover)


def test_the_process_holds_the_jobs_lock_and_is_known(world: Dispatching) -> None:
    world.add()
    world.made().tick()
    job = world.job()

    assert world.parts.home.job("batch-1").is_alive()
    assert (job.status, job.owner, job.pid, job.pid_started) == ("preparing", OWNER, NOBODY, T0.timestamp())
    world.forks.let_go()
    assert not world.parts.home.job("batch-1").is_alive()


def test_a_process_that_dies_before_its_first_word_costs_the_job_a_retry(world: Dispatching) -> None:
    """Or it would be started for ever."""
    world.add()
    dispatcher = world.made()
    dispatcher.tick()
    world.forks.let_go()
    reaper = Reaper(
        world.parts.home,
        world.parts.store,
        world.settings,
        lambda owner: True,
        dispatcher.is_starting,
    )
    reaper.note_exit(NOBODY, 1)

    assert reaper.tick() == 1
    assert world.job().retries == 1
    assert world.parts.reasons()[-1].startswith(f"its process died (pid {NOBODY}, exit code 1); retry 1 of 3 in ")


def test_a_process_that_was_quicker_than_the_dispatcher_is_left_alone(world: Dispatching) -> None:
    world.add()
    world.forks.on_fork = lambda task: world.parts.store.move("batch-1", "preparing", "failed", "the model is missing")
    world.made().tick()

    assert (world.job().status, world.job().pid) == ("failed", None)


def test_no_more_jobs_are_started_than_there_is_room_for(world: Dispatching) -> None:
    for n in range(5):
        world.add(f"batch-{n}", tenant=f"tenant-{n}")
    dispatcher = world.made(max_jobs=2)

    assert dispatcher.tick() == 2
    assert dispatcher.tick() == 0
    world.parts.store.move("batch-0", "preparing", "failed", "no")
    assert dispatcher.tick() == 1
    # The room of another launcher is another's.
    assert world.made("launcher-two", max_jobs=2).tick() == 2


def test_no_tenant_has_more_jobs_at_work_than_it_may(world: Dispatching) -> None:
    for n in range(4):
        world.add(f"batch-{n}", tenant="acme")
    world.add("batch-9", tenant="globex")

    assert world.made(max_concurrent_jobs=2).tick() == 3
    assert {job.id for job in world.parts.store.at_work()} == {"batch-0", "batch-1", "batch-9"}


# --- what cannot be started ----------------------------------------------------------------------------------------


def test_a_fork_that_fails_is_tried_again_and_then_given_up(world: Dispatching) -> None:
    world.add(config={"retry_count": 2})
    world.forks.failures = [ForkFailed("the fork server is not warm yet") for _ in range(3)]
    dispatcher = world.made()
    for _ in range(3):
        assert dispatcher.tick() == 1
        assert dispatcher.tick() == 0
        world.parts.clock.advance(61)
    job = world.job()
    waits = [reason for reason in world.parts.reasons() if "retry" in reason]

    assert (job.status, job.outcome, job.error) == ("failed", "error", "the fork server is not warm yet")
    assert [wait.partition(" in ")[0] for wait in waits] == [
        "the fork server is not warm yet; retry 1 of 2",
        "the fork server is not warm yet; retry 2 of 2",
    ]
    assert not world.parts.home.job("batch-1").is_alive()


@pytest.mark.parametrize(
    "failure",
    [
        pytest.param(ForkFailed("no room for a process"), id="fork"),
        pytest.param(PermissionError(13, "Permission denied"), id="operating system"),
    ],
)
def test_one_failure_to_fork_is_got_over(world: Dispatching, failure: Exception) -> None:
    world.add()
    world.forks.failures = [failure]
    dispatcher = world.made()
    dispatcher.tick()
    waiting = world.job()
    world.parts.clock.advance(11)
    dispatcher.tick()

    assert (waiting.status, waiting.retries, waiting.attempt) == ("submitted", 1, 2)
    assert (world.job().status, world.job().attempt) == ("preparing", 2)


def test_a_connection_that_is_gone_fails_the_job_with_a_clear_line(world: Dispatching) -> None:
    world.add()
    world.refusal = ConnectionUnknown("sales")
    world.made().tick()
    job = world.job()

    assert (job.status, job.outcome, job.retries) == ("failed", "error", 0)
    assert job.error == "there is no connection 'sales'; `penstock connections list` shows all"
    assert world.forks.tasks == []


def test_a_host_that_has_no_address_for_a_moment_is_tried_again(world: Dispatching) -> None:
    world.add()
    world.refusal = HostUnknown("db.example.com")
    world.refusal.__cause__ = OSError(101, "Network is unreachable")
    world.made().tick()

    assert (world.job().status, world.job().retries) == ("submitted", 1)


def test_a_resolver_that_is_away_costs_no_retry(world: Dispatching) -> None:
    world.add(config={"retry_count": 0})
    world.refusal = HostUnknown("db.example.com", for_now=True)
    dispatcher = world.made()
    dispatcher.tick()
    waiting = world.job()
    world.refusal = None
    world.parts.clock.advance(11)
    dispatcher.tick()

    assert (waiting.status, waiting.retries) == ("submitted", 0)
    assert waiting.not_before is not None
    assert world.job().status == "preparing"
    assert world.parts.reasons()[-2].startswith(
        "the address of host 'db.example.com' cannot be found out at the moment"
    )


def test_a_working_folder_that_is_gone_fails_the_job(world: Dispatching, tmp_path: Path) -> None:
    world.add(working_dir=str(tmp_path / "gone"))
    world.made().tick()

    assert world.job().status == "failed"
    assert world.job().error == f"the folder {tmp_path}/gone is gone; submit the job anew"


def test_a_home_that_cannot_be_written_is_tried_again(world: Dispatching, monkeypatch: pytest.MonkeyPatch) -> None:
    world.add()
    world.forks.failures = [HomeUnusable("the disk of /home is full; free some space")]
    world.made().tick()

    assert world.job().retries == 1


def test_a_job_whose_last_process_is_still_there_waits_and_that_does_not_count(world: Dispatching) -> None:
    world.add()
    world.parts.home.job("batch-1").create()
    lock = world.parts.home.job("batch-1").lock("batch-1")
    dispatcher = world.made()
    try:
        assert dispatcher.tick() == 1
    finally:
        lock.release()
    waiting = world.job()
    world.parts.clock.advance(1)
    dispatcher.tick()

    assert (waiting.status, waiting.retries, waiting.attempt) == ("submitted", 0, 2)
    assert waiting.not_before is not None
    assert (waiting.not_before - T0).total_seconds() == 0.5
    assert "its last process is still there, again in 0.5 s" in world.parts.reasons()
    assert world.job().status == "preparing"


def test_a_job_that_was_to_stop_is_not_tried_again(world: Dispatching) -> None:
    world.add()
    world.forks.failures = [ForkFailed("no room for a process")]
    world.forks.on_fork = lambda task: world.parts.store.request_cancel("batch-1", "enough")
    world.made().tick()

    assert world.job().status == "cancelled"


def test_a_store_that_goes_away_meanwhile_is_told_and_leaves_nothing_held(
    world: Dispatching, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.add()
    world.forks.failures = [ForkFailed("no room for a process")]
    dispatcher = world.made()

    def away(*arguments: Any, **changes: Any) -> Job:
        raise StoreUnavailable("the store is away")

    monkeypatch.setattr(world.parts.store, "move", away)

    with pytest.raises(StoreUnavailable):
        dispatcher.tick()
    assert not dispatcher.is_starting(world.job())
    assert not world.parts.home.job("batch-1").is_alive()


def test_while_no_process_can_be_forked_jobs_wait_in_the_queue(world: Dispatching) -> None:
    world.add()
    world.forks.is_warm = False
    dispatcher = world.made()

    assert dispatcher.tick() == 0
    assert (world.job().status, world.job().retries) == ("submitted", 0)
    world.forks.is_warm = True
    assert dispatcher.tick() == 1


def test_what_a_launcher_that_died_has_left_running_takes_places(world: Dispatching) -> None:
    for n in range(8):
        world.add(f"batch-{n}", tenant=f"tenant-{n}")
    # Of this machine and gone, of this machine and alive, of another machine.
    for owner in ("host-dead", "host-lives", "other-dead"):
        assert len(world.parts.store.claim(owner, 1, 9, 30.0)) == 1

    assert world.made("host-new", max_jobs=3).tick() == 2


def test_whether_a_job_starts_is_told_while_a_claim_waits_for_the_store(
    world: Dispatching, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.add()
    claim = world.parts.store.claim
    claimed, go_on = threading.Event(), threading.Event()

    def slow(*asked: Any) -> list[Job]:
        jobs = claim(*asked)
        claimed.set()
        assert go_on.wait(PATIENCE_S)
        return jobs

    monkeypatch.setattr(world.parts.store, "claim", slow)
    dispatcher = world.made()
    with ThreadPoolExecutor(1) as threads:
        ticking = threads.submit(dispatcher.tick)
        assert claimed.wait(PATIENCE_S)
        assert dispatcher.is_starting(world.job())
        assert not dispatcher.is_starting(replace(world.job(), owner="launcher-two"))
        go_on.set()
        ticking.result(PATIENCE_S)
    assert not dispatcher.is_starting(world.job())


def started_jobs(world: Dispatching) -> list[Any]:
    return [task.arguments["job_id"] for task in world.forks.tasks]


def test_a_resolver_that_does_not_answer_one_tenant_holds_up_no_other(world: Dispatching) -> None:
    world.slow = ("acme",)
    world.add("batch-1", tenant="acme")
    dispatcher = world.made(lookup_s=0.01)
    assert dispatcher.tick() == 1
    waiting = world.job()
    world.add("batch-2", tenant="globex")
    while not world.forks.tasks:
        dispatcher.tick()

    assert started_jobs(world) == ["batch-2"]
    assert dispatcher.is_starting(waiting)

    world.woken.clear()
    world.known.set()
    assert world.woken.wait(PATIENCE_S)
    dispatcher.tick()
    assert started_jobs(world) == ["batch-2", "batch-1"]
    assert not dispatcher.is_starting(waiting)
    assert world.job().pid == NOBODY


def looked_up(world: Dispatching, **made: Any) -> Dispatcher:
    """A dispatcher that has claimed a job whose connections are not known yet."""
    world.slow = ("acme",)
    world.add(tenant="acme", config={"retry_count": 0})
    dispatcher = world.made(lookup_s=0.01, **made)
    assert dispatcher.tick() == 1
    assert dispatcher.is_starting(world.job())
    return dispatcher


def test_a_cancel_does_not_wait_for_a_resolver(world: Dispatching) -> None:
    dispatcher = looked_up(world)
    world.parts.store.request_cancel("batch-1", "enough")
    dispatcher.tick()

    assert world.job().status == "cancelled"
    world.known.set()
    assert dispatcher.tick() == 0
    assert started_jobs(world) == []


def test_the_lease_of_a_job_that_waits_for_a_resolver_is_renewed(world: Dispatching) -> None:
    dispatcher = looked_up(world)
    world.parts.clock.advance(20)
    dispatcher.tick()

    assert world.job().lease_until == world.parts.clock.now + timedelta(seconds=30)
    world.known.set()


def test_a_job_whose_time_ends_while_its_hosts_are_looked_up_is_ended(world: Dispatching) -> None:
    dispatcher = looked_up(world)
    world.parts.clock.advance(3601)
    dispatcher.tick()
    waiting = world.job()

    assert (waiting.status, started_jobs(world)) == ("submitted", [])
    assert [job.id for job in world.parts.store.overdue()] == ["batch-1"]
    # Not before the reaper has seen it.
    assert waiting.not_before == world.parts.clock.now + timedelta(seconds=2)
    assert dispatcher.tick() == 0
    world.known.set()


def test_a_job_that_another_launcher_has_by_now_is_forgotten(world: Dispatching) -> None:
    dispatcher = looked_up(world)
    job = world.job()
    later = world.parts.clock.now + timedelta(seconds=60)
    world.parts.store.move("batch-1", "preparing", "submitted", "taken", not_before=later)
    world.known.set()
    dispatcher.tick()

    assert not dispatcher.is_starting(job)
    assert started_jobs(world) == []
    assert world.job().status == "submitted"


def test_a_lookup_that_never_ends_is_given_up_and_made_again_later(world: Dispatching) -> None:
    dispatcher = looked_up(world)
    world.now = 30.0
    dispatcher.tick()
    waiting = world.job()

    assert (waiting.status, waiting.retries) == ("submitted", 0)
    assert world.parts.reasons()[-1].startswith("its connections were not looked up within 30 s; again in ")
    assert waiting.not_before > world.parts.clock.now
    assert not dispatcher.is_starting(waiting)
    world.known.set()


def test_a_store_that_is_away_while_connections_are_looked_up_costs_no_retry(world: Dispatching) -> None:
    world.refusal = StoreUnavailable("the store is away")
    world.add(config={"retry_count": 0})
    world.made().tick()

    assert (world.job().status, world.job().retries) == ("submitted", 0)


def test_a_store_that_goes_away_over_giving_a_job_back_gets_it_later(
    world: Dispatching, monkeypatch: pytest.MonkeyPatch
) -> None:
    dispatcher = looked_up(world)
    world.parts.store.request_cancel("batch-1", "enough")

    def away(*arguments: Any, **changes: Any) -> Job:
        raise StoreUnavailable("the store is away")

    with monkeypatch.context() as patch:
        patch.setattr(world.parts.store, "move", away)
        with pytest.raises(StoreUnavailable):
            dispatcher.tick()
    assert dispatcher.is_starting(world.job())

    dispatcher.tick()
    assert world.job().status == "cancelled"
    world.known.set()


def test_a_launcher_that_stops_leaves_alone_what_is_being_started(world: Dispatching) -> None:
    world.add()
    dispatcher = world.made()
    world.forks.on_fork = lambda task: dispatcher.leave()
    dispatcher.tick()

    assert (world.job().status, world.job().attempt, world.job().pid) == ("preparing", 1, NOBODY)


def test_where_no_thread_can_be_started_the_job_is_tried_again(
    world: Dispatching, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    world.add()
    monkeypatch.setattr(threading.Thread, "start", refuse)
    dispatcher = world.made()
    dispatcher.tick()

    assert (world.job().status, world.job().retries) == ("submitted", 1)
    assert not dispatcher.is_starting(world.job())


def test_while_no_process_can_be_forked_looked_up_jobs_go_back_into_the_queue(world: Dispatching) -> None:
    dispatcher = looked_up(world)
    world.forks.is_warm = False
    dispatcher.tick()

    assert (world.job().status, world.job().retries) == ("submitted", 0)
    assert not dispatcher.is_starting(world.job())
    world.known.set()


def test_what_a_resolver_says_late_is_heeded(world: Dispatching) -> None:
    world.slow, world.refusal = ("acme",), HostUnknown("db.example.com")
    world.add(tenant="acme", config={"retry_count": 0})
    dispatcher = world.made(lookup_s=0.01)
    dispatcher.tick()
    world.known.set()
    assert world.woken.wait(PATIENCE_S)
    dispatcher.tick()

    assert world.forks.tasks == []
    assert world.job().status == "failed"


def test_jobs_whose_hosts_are_looked_up_take_places(world: Dispatching) -> None:
    world.slow = ("acme",)
    for n in range(3):
        world.add(f"batch-{n}", tenant="acme")
    dispatcher = world.made(lookup_s=0.01, max_jobs=2)

    assert (dispatcher.tick(), dispatcher.tick()) == (2, 0)
    world.known.set()


# --- stopping and racing -------------------------------------------------------------------------------------------


def test_what_cannot_be_started_because_the_launcher_stops_waits_for_another(world: Dispatching) -> None:
    world.add("batch-1", config={"retry_count": 0})
    world.add("batch-2", tenant="globex")
    dispatcher = world.made()
    world.forks.on_fork = lambda task: dispatcher.close()
    world.forks.failures = [ForkFailed("the fork server is closed")]
    assert dispatcher.tick() == 1
    waiting = world.job()

    assert (waiting.status, waiting.retries) == ("submitted", 0)
    assert world.parts.reasons()[-1] == "its launcher was stopped, again in 0.0 s"
    assert dispatcher.tick() == 0
    assert world.made("launcher-two").tick() == 2


def test_what_still_waits_for_a_resolver_when_the_launcher_stops_waits_for_another(world: Dispatching) -> None:
    world.slow = ("acme",)
    world.add(tenant="acme", config={"retry_count": 0})
    dispatcher = world.made(lookup_s=0.01)
    dispatcher.tick()
    dispatcher.close()
    world.known.set()
    assert world.woken.wait(PATIENCE_S)
    dispatcher.tick()
    dispatcher.leave()
    waiting = world.job()

    assert (waiting.status, waiting.retries, world.forks.tasks) == ("submitted", 0, [])
    assert world.made("launcher-two").tick() == 1


def test_nobody_finds_a_claimed_job_that_is_not_about_to_start(world: Dispatching) -> None:
    """A reaper that looks at any moment finds a job either started, or among those that start."""
    dispatcher = world.made()
    wrong: list[Job] = []
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            for job in world.parts.store.at_work():
                # In this order, as the reaper asks.
                if not dispatcher.is_starting(job):
                    now = world.parts.store.get(job.id)
                    if now.status == "preparing" and now.pid is None:
                        wrong.append(job)

    for n in range(30):
        world.add(f"batch-{n:02}", tenant=f"tenant-{n}")
    with ThreadPoolExecutor(1) as threads:
        looking = threads.submit(look)
        while dispatcher.tick():
            world.forks.let_go()
            for job in world.parts.store.at_work():
                world.parts.store.move(job.id, "preparing", "failed", "no")
        done.set()
        looking.result(PATIENCE_S)

    assert wrong == []
    assert len(world.forks.tasks) == 30


def test_of_two_launchers_one_starts_a_job(world: Dispatching) -> None:
    for n in range(20):
        world.add(f"batch-{n:02}", tenant=f"tenant-{n}")
    both = [world.made(owner, max_jobs=100) for owner in ("launcher-one", "launcher-two")]
    with ThreadPoolExecutor(2) as threads:
        started = list(threads.map(lambda each: each.tick(), both))

    assert sum(started) == 20
    assert sorted(task.arguments["job_id"] for task in world.forks.tasks) == [f"batch-{n:02}" for n in range(20)]
