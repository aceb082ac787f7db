"""An attempt takes up what earlier ones left, whatever that is."""

import json
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from launcher.home import Home
from launcher.reach.tenant import operators_uri
from launcher.state.job import Job, Status
from launcher.state.registry import Connections
from launcher.state.sql import SqlJobStore
from launcher.supervisor import Supervisor
from launcher.worker import attempt
from launcher.worker.discarding import discard
from pipelines import calibration, prepare
from pipelines.binding import Binding
from pipelines.spec import Config, JobSpec, ParquetInput, ParquetOutput, Rejects, TableOutput
from predictors.base import ModelSpec
from predictors.errors import ModelNotLoadable, WrongAnswer
from predictors.notices import Notice
from tests.encrypting import write_encrypted
from tests.scenes import Doubler, numbered_rows, write_files
from tests.tables import execute
from tests.unit.test_predictors_taking import COLUMNS
from transforms.batches import Split
from transforms.counts import Counts
from transforms.errors import InputChanged, InputError, OutputError
from transforms.publish import AlwaysOpen
from transforms.sinks.manifest import read_manifest
from transforms.sources import base


class Brittle(Doubler):
    """A predictor that fails the run when it is called in the second attempt."""

    forbidden = False

    def predict(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        if Brittle.forbidden:
            raise AssertionError("these rows were scored already")
        return super().predict(rows)


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Brittle, "forbidden", False)
    write_files(tmp_path / "in", numbered_rows(1000, bad=[7]), files=3)
    (tmp_path / "job").mkdir()
    spec = JobSpec(
        ModelSpec(f"{__name__}:Brittle", "python"),
        ParquetInput(("in",)),
        ParquetOutput("scores", "overwrite", ("id",)),
        Rejects("rejects", 0.1),
        Config(batch_size=10),
    )
    return Job("batch-1", spec, str(tmp_path), datetime.now(UTC))


def test_after_a_kill_behind_publishing_only_the_tidying_is_done(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path("job").absolute()
    first = attempt.run(attempt.prepare(job, folder), AlwaysOpen())
    before = sorted(path.stat().st_ino for path in Path("scores").iterdir())
    # What a kill within the tidying leaves: some of the staging, the notes gone.
    Path(".scores.penstock-batch-1/parts").mkdir(parents=True)
    monkeypatch.setattr(Brittle, "forbidden", True)

    again = attempt.run(attempt.prepare(job, folder), AlwaysOpen())

    assert again.counts == first.counts == Counts(scored=999, rejected=1)
    assert sorted(path.stat().st_ino for path in Path("scores").iterdir()) == before
    assert pq.read_table("rejects")["id"].to_pylist() == [7]
    assert not Path(".scores.penstock-batch-1").exists()


def test_what_was_noticed_is_planned_published_and_left_for_the_job(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, passed_over = Path("job").absolute(), Notice("files_passed_over", "in/notes.txt is no Parquet file")
    opened = ParquetInput.open
    monkeypatch.setattr(ParquetInput, "open", lambda *given: replace(opened(*given), notices=(passed_over,)))
    attempt.prepare(job, folder)

    # Another attempt opens nothing anew.
    prepared = attempt.prepare(job, folder)
    attempt.run(prepared, AlwaysOpen())

    assert prepared.notices == (passed_over,)
    assert json.loads((folder / "notices.json").read_bytes()) == [passed_over.to_json()]
    manifest = read_manifest(Path("scores"))
    assert manifest is not None
    assert manifest["notices"] == [passed_over.to_json()]


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("by", ["command", "service"])
def test_a_deleted_job_of_the_service_takes_what_it_staged_in_a_named_database_along(
    job: Job, schema: str, known: bool, by: str
) -> None:
    home = Home(Path("home").absolute())
    home.create()
    store = SqlJobStore.at(home.store)
    output, rejects = TableOutput("crm", "scores"), Rejects("rejects", 0.1)
    managed = replace(job, id="batch-0123456789", managed=True, tenant="acme")
    managed = replace(managed, spec=replace(job.spec, output=output, rejects=rejects))
    store.add(managed, "test")
    folder = home.job(managed.id)
    folder.create()
    attempt.prepare(replace(managed, spec=managed.spec.with_uris({"crm": schema})), folder.path)
    staged = tables_of(schema)
    steps: tuple[Status, ...] = ("preparing", "running", "failed")
    for status in steps:
        store.move(managed.id, store.get(managed.id).status, status, "test")
    connections = Connections(store.database)
    if known:
        connections.put("acme", "crm", schema)
    connections.put("bolt", "crm", "postgresql://nobody@nowhere/none")
    if by == "command":
        uri_of = partial(operators_uri, connections, None)
        stays = Supervisor(home, store, "launcher.worker.attempt", uri_of).delete(managed.id)
        assert (stays is None) is known
        assert store.jobs() == []
        assert not folder.path.exists()
    else:
        uris = {"crm": schema} if known else None
        discard(managed.id, managed.spec.to_json(), uris, str(folder.path), "launcher.worker.attempt")
    store.close()

    assert "_penstock_batch_0123456789" in staged
    assert tables_of(schema) == ([] if known else staged)
    assert not list(Path().glob(".*penstock-batch-0123456789*"))


def tables_of(uri: str) -> list[str]:
    found = execute(
        uri,
        "SELECT relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r' ORDER BY 1",
    )
    return [name for (name,) in found]


def test_the_stored_plan_is_used_and_a_changed_input_is_named(job: Job) -> None:
    folder = Path("job").absolute()
    planned = attempt.prepare(job, folder)
    write_files(Path("in"), numbered_rows(2000), files=3)

    again = attempt.prepare(job, folder)

    assert again.publication.splits == planned.publication.splits
    with pytest.raises(InputChanged, match=r"in/in-00\.parquet: the file changed after the job was planned"):
        attempt.run(again, AlwaysOpen())


@pytest.mark.parametrize("passed", [True, False], ids=["passed through", "only among the rejects"])
def test_a_rejected_row_in_the_middle_disturbs_no_type(job: Job, passed: bool) -> None:
    # Parquet has none of the others, nor do databases.
    names = [
        name
        for name, column in COLUMNS.items()
        if not re.search("run|fixed|dictionary of|interval|union|decimal256", name) and column.type != pa.null()
    ]
    columns = {name: COLUMNS[name] for name in names}
    shutil.rmtree("in")
    write_files(Path("in"), pa.table({"id": [0, 1, 2], "value": [1.0, None, 2.0], **columns}))
    output = replace(job.spec.output, columns=("id", *names) if passed else ("id",))
    spec = replace(job.spec, output=output, rejects=Rejects("rejects", 1.0))

    attempt.run(attempt.prepare(replace(job, spec=spec), Path("job").absolute()), AlwaysOpen())

    scores, rejects = pq.read_table("scores"), pq.read_table("rejects")
    assert len(names) >= 15
    assert scores["id"].to_pylist() == [0, 2]
    for name, column in columns.items():
        first, middle, last = column.to_pylist()
        assert rejects[name].to_pylist() == [middle], name
        if passed:
            assert scores[name].to_pylist() == [first, last], name


def test_a_model_that_changed_between_attempts_is_refused(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path("job").absolute()
    attempt.prepare(job, folder)
    monkeypatch.setattr(prepare, "_model_sha256", lambda model, within: "another")

    with pytest.raises(InputChanged, match="changed after the job was planned; run the job anew"):
        attempt.prepare(job, folder)


def test_discarding_a_job_leaves_the_old_result_and_nothing_else(job: Job) -> None:
    folder = Path("job").absolute()
    attempt.prepare(job, folder)

    attempt.discard(job, folder)

    assert sorted(path.name for path in Path().iterdir()) == ["in", "job"]


class Counted(Doubler):
    """A predictor that keeps how many rows it was given in each call."""

    calls: list[int] = []

    def predict(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        Counted.calls.append(rows.num_rows)
        return super().predict(rows)


class Slow(Counted):
    """Takes 5 ms for each row."""

    def predict(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        time.sleep(0.005 * rows.num_rows)
        return super().predict(rows)


@pytest.fixture
def large(job: Job, monkeypatch: pytest.MonkeyPatch) -> Callable[..., set[int]]:
    """Plans a job over some rows for one thread; how long its spans are."""

    def planned(model: type, rows: int, batch_size: int = 10) -> set[int]:
        monkeypatch.setattr(Counted, "calls", [])
        write_files(Path("large"), numbered_rows(rows))
        spec = replace(
            job.spec,
            model=replace(job.spec.model, uri=f"{__name__}:{model.__name__}"),
            input=ParquetInput(("large",)),
            config=Config(batch_size=batch_size, parallelism=1),
        )
        splits = attempt.prepare(replace(job, spec=spec), Path("job").absolute()).publication.splits
        return {split.span_rows for split in splits}

    return planned


def test_spans_of_a_slow_model_are_short(large: Callable[..., set[int]]) -> None:
    """A kill costs the spans that were being scored: some seconds of work."""
    (length,) = large(Slow, 300_000)

    assert 500 <= length <= 1000
    # A slow model is asked of few rows.
    assert sum(Counted.calls) <= 300


def test_spans_of_a_fast_model_are_long(large: Callable[..., set[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "_ENOUGH_S", 60.0)
    monkeypatch.setattr(calibration, "_LONGEST_S", 60.0)
    # Ten rows take it less than 15 s.
    monkeypatch.setattr(base, "SPAN_S", 300_000 / 16 * 1.5)

    assert large(Counted, 300_000) == {300_000 // 16 // 10 * 10}
    assert Counted.calls == [1, 1, 8, 8, 10, 10]


def test_a_model_is_not_asked_for_its_pace_where_no_span_could_be_shorter(large: Callable[..., set[int]]) -> None:
    assert large(Counted, 3000, batch_size=200) == {200}
    assert Counted.calls == []


def test_a_model_that_killed_two_processes_is_not_asked_again(large: Callable[..., set[int]]) -> None:
    # As attempts leave it that were killed while they asked.
    Path("job/asked").write_bytes(b".")
    (asked,) = large(Slow, 300_000)
    Path("job/plan.json").unlink()
    Path("job/asked").write_bytes(b"..")

    assert large(Slow, 300_000) == {300_000 // 16 // 10 * 10}
    assert Counted.calls == []
    assert asked <= 1000


def test_an_attempt_that_failed_over_asking_does_not_keep_the_next_from_it(
    large: Callable[..., set[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*asked: object) -> None:
        raise OSError("the disk")

    with monkeypatch.context() as patch:
        patch.setattr(prepare, "seconds_per_row", fail)
        for _ in range(2):
            with pytest.raises(OSError, match="the disk"):
                large(Slow, 300_000)
    (length,) = large(Slow, 300_000)

    assert length <= 1000
    assert not Path("job/asked").exists()


def test_the_pace_is_asked_where_spans_are_longest(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of the first file are so wide that its spans are short."""
    asked: list[str] = []

    def seconds_per_row(bound: Binding, split: Split, *others: object) -> float:
        asked.append(split.uri)
        return 1.0

    monkeypatch.setattr(prepare, "seconds_per_row", seconds_per_row)
    wide, narrow = numbered_rows(1000), numbered_rows(200_000)
    wide = wide.set_column(2, "note", pa.array([f"{n:050000}" for n in range(1000)]))
    write_files(Path("a"), wide)
    write_files(Path("b"), narrow)
    output = replace(job.spec.output, columns=("id", "note"))
    spec = replace(job.spec, input=ParquetInput(("a", "b")), output=output)
    attempt.prepare(replace(job, spec=spec), Path("job").absolute())

    assert asked == ["b/in-00.parquet"]
    # Nor where they could be long, but there are few rows.
    Path("job/plan.json").unlink()
    write_files(Path("few"), numbered_rows(3))
    spec = replace(job.spec, input=ParquetInput(("few", "b")))
    attempt.prepare(replace(job, spec=spec), Path("job").absolute())

    assert asked == ["b/in-00.parquet"] * 2


class Undeclared:
    """A class that does not say what it answers, and refuses negative values."""

    def predict(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        if pc.any(pc.less(rows["value"], 0)).as_py():
            raise ValueError("a value is negative")
        return pa.record_batch({"half": pc.divide(rows["value"], 2.0)})


class Mended:
    """Scores all, and says why."""

    def predict(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        half = pc.divide(rows["value"], 2.0)
        return pa.record_batch({"half": half, "why": pc.cast(half, pa.string())})


def test_what_is_added_to_a_result_has_its_columns_though_all_rows_are_refused_again(job: Job) -> None:
    """Rows that were rejected are scored again by a class that tells its columns only by its answers."""
    model = ModelSpec(f"{__name__}:Undeclared", "python", ("value",))
    first = replace(job, id="batch-1", spec=replace(job.spec, model=model))
    folder = Path("jobs/batch-1").absolute()
    folder.mkdir(parents=True)
    attempt.run(attempt.prepare(first, folder), AlwaysOpen())
    refused = replace(
        first.spec,
        input=ParquetInput(("rejects",)),
        output=replace(first.spec.output, mode="append", appends_to="batch-1"),
        rejects=Rejects("again", 1.0),
    )
    again = replace(job, id="batch-2", spec=refused)
    folder = Path("jobs/batch-2").absolute()
    folder.mkdir()

    result = attempt.run(attempt.prepare(again, folder), AlwaysOpen())

    assert result.counts == Counts(scored=0, rejected=1)
    assert pq.read_table("scores").column_names == ["id", "half"]
    # One that answers otherwise now is found out before anything is read.
    output = replace(refused.output, appends_to="batch-2")
    mended = replace(refused, model=replace(model, uri=f"{__name__}:Mended"), output=output)
    mended = replace(again, id="batch-4", spec=mended)
    folder.with_name("batch-4").mkdir()
    with pytest.raises(OutputError, match="column why is missing"):
        attempt.prepare(mended, folder.with_name("batch-4"))
    shutil.rmtree("jobs/batch-1")
    with pytest.raises(ModelNotLoadable, match="declares no output_schema, and failed on the first rows"):
        attempt.prepare(replace(again, id="batch-3"), folder.with_name("batch-3"))


class Late:
    """Says null for the first 50 values, text later."""

    def predict(self, rows: pa.RecordBatch) -> list[str | None]:
        return [None if value < 50 else "hit" for value in rows["value"].to_pylist()]


class Widens:
    """Integers for the first 50 values, halves later."""

    def predict(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        return pa.record_batch({"y": [int(value) if value < 50 else value / 2 for value in rows["value"].to_pylist()]})


class Nulls:
    """Counts the nulls of columns that it does not declare to read."""

    def predict(self, rows: pa.RecordBatch) -> dict[str, list[int]]:
        return {"nulls": [sum(value is None for value in row.values()) for row in rows.to_pylist()]}


class Careful(Nulls):
    """Declares what it reads."""

    features = ["value"]


class Narrow:
    """Declares one column of the input."""

    input_schema = pa.schema([("value", pa.float64())])
    output_schema = pa.schema([("score", pa.float64())])

    def predict(self, rows: pa.RecordBatch) -> list[float]:
        if rows.schema != self.input_schema:
            raise AssertionError(rows.schema)
        return [2 * value for value in rows["value"].to_pylist()]


class Wide:
    """Declares nothing, and answers with the number of columns that it gets."""

    def predict(self, rows: pa.RecordBatch) -> dict[str, list[float]]:
        return {"score": [float(rows.num_columns)] * rows.num_rows}


@pytest.mark.parametrize(("model", "score"), [(Narrow, -16.0), (Wide, 3.0)])
def test_rejected_rows_are_scored_again_by_a_class_as_rows_of_the_input(job: Job, model: type, score: float) -> None:
    folder = Path("jobs/batch-1").absolute()
    folder.mkdir(parents=True)
    attempt.run(attempt.prepare(replace(job, id="batch-1"), folder), AlwaysOpen())
    name = f"{__name__}:{model.__name__}"
    again = replace(
        job.spec,
        model=ModelSpec(name, "python"),
        input=ParquetInput(("rejects",)),
        output=replace(job.spec.output, mode="append", appends_to="batch-1"),
        rejects=Rejects("again", 1.0),
    )
    folder = Path("jobs/batch-2").absolute()
    folder.mkdir()

    bound = attempt.prepare(replace(job, id="batch-2", spec=again), folder).bound

    assert bound is not None
    rows = pa.record_batch({"id": [7], "value": [-8.0], "note": ["row 7"]})
    assert bound.predictor.input_schema.names == (["value"] if model is Narrow else ["id", "value", "note"])
    answer = bound.predictor.predict(rows.select(bound.predictor.input_schema.names))
    assert answer.to_pydict() == {"score": [score]}


@pytest.fixture
def scored(job: Job) -> Callable[..., pa.Table]:
    """What a class of this module scores, by calls of `batch_size`, in the order of the input."""
    write_files(Path("many"), numbered_rows(200, nulls=[150]))

    def scored(model: type, batch_size: int) -> pa.Table:
        spec = replace(
            job.spec,
            model=ModelSpec(f"{__name__}:{model.__name__}", "python"),
            input=ParquetInput(("many",)),
            config=Config(batch_size=batch_size),
        )
        if model in (Late, Widens):
            spec = replace(spec, model=replace(spec.model, features=("value",)))
        attempt.run(attempt.prepare(replace(job, spec=spec), Path("job").absolute()), AlwaysOpen())
        return pq.read_table("scores").sort_by("id")

    return scored


def test_a_class_that_shows_no_type_in_its_first_batch_is_asked_for_one(scored: Callable[..., pa.Table]) -> None:
    with pytest.raises(ModelNotLoadable) as caught:
        scored(Late, 50)
    assert str(caught.value) == (
        f"model {__name__}:Late declares no output_schema, and its answers to the first 50 rows show no type for "
        "column prediction, where all are null; declare one: output_schema = pa.schema([('prediction', ...)])"
    )
    assert not Path("job/plan.json").exists()


def test_what_a_class_shows_in_its_first_batch_is_taken_together(scored: Callable[..., pa.Table]) -> None:
    assert scored(Late, 100)["prediction"].to_pylist()[49:51] == [None, "hit"]
    shutil.rmtree("job")
    Path("job").mkdir()

    assert scored(Widens, 100)["y"].to_pylist()[49:52] == [49.0, 25.0, 25.5]


def test_a_class_that_answers_otherwise_later_is_refused_with_the_position(scored: Callable[..., pa.Table]) -> None:
    with pytest.raises(WrongAnswer) as caught:
        scored(Widens, 50)
    assert str(caught.value).startswith(
        f"many/in-00.parquet:51: model {__name__}:Widens: predict returned pyarrow.lib.RecordBatch: column y holds "
        "25.5 (double), which int64 cannot hold; what was promised, (y: int64), is what its answer"
    )


def test_a_class_gets_nulls_of_columns_that_it_does_not_declare(scored: Callable[..., pa.Table]) -> None:
    assert scored(Nulls, 50)["nulls"].to_pylist()[149:152] == [0, 1, 0]
    shutil.rmtree("job")
    Path("job").mkdir()

    assert scored(Careful, 50)["id"].to_pylist()[148:152] == [148, 149, 151, 152]


class PerDay(Doubler):
    """Doubles `value`, on days that are there."""

    input_schema = pa.schema([pa.field("value", pa.float64()), pa.field("day", pa.date32(), nullable=False)])


def test_columns_of_folders_are_fed_passed_through_and_kept_with_the_rejects(job: Job) -> None:
    for day in ("2025-01-01", "__HIVE_DEFAULT_PARTITION__"):
        write_files(Path("days") / f"day={day}" / "zip=01234", numbered_rows(10, bad=[7]))
    spec = replace(
        job.spec,
        model=ModelSpec(f"{__name__}:PerDay", "python"),
        input=ParquetInput(("days",), (("day", "date32[day]"),)),
        output=ParquetOutput("scores", "overwrite", ("id", "day", "zip")),
        rejects=Rejects("rejects", 1.0),
    )
    folder = Path("job").absolute()
    attempt.prepare(replace(job, spec=spec), folder)
    # Taken up again, it knows what the folders say.
    result = attempt.run(attempt.prepare(replace(job, spec=spec), folder), AlwaysOpen())

    day = datetime(2025, 1, 1, tzinfo=UTC).date()
    scores, rejects = pq.read_table("scores", partitioning=None), pq.read_table("rejects", partitioning=None)
    assert result.counts == Counts(scored=9, rejected=11)
    assert (set(scores["day"].to_pylist()), set(scores["zip"].to_pylist())) == ({day}, {"01234"})
    assert rejects.column_names == ["id", "value", "note", "day", "zip", "position", "error_type", "error"]
    assert sorted(map(str, rejects["day"].to_pylist())) == [str(day)] + ["None"] * 10
    assert set(rejects["zip"].to_pylist()) == {"01234"}
    assert rejects["note"].null_count == 0


@pytest.mark.parametrize(
    ("columns", "features", "refusal"),
    [
        pytest.param(("id",), ("value",), None, id="plain columns alone"),
        pytest.param(("id",), "of the class", None, id="features of the class"),
        pytest.param(
            None, ("value",), "; list the columns to keep in output.columns, without it", id="all passed through"
        ),
        pytest.param(("note",), ("value",), "; take it out of output.columns", id="passed through"),
        pytest.param(("id",), ("value", "note"), "; have the model do without it", id="a feature"),
        pytest.param(("id",), None, "; list the columns that the class reads in model.features", id="all as features"),
    ],
)
def test_only_wanted_columns_must_not_be_encrypted(
    job: Job, columns: tuple[str, ...] | None, features: tuple[str, ...] | str | None, refusal: str | None
) -> None:
    Path("secret").mkdir()
    write_encrypted(Path("secret/a.parquet"), numbered_rows(10), ["note"])
    spec = replace(
        job.spec,
        model=(
            ModelSpec(f"{__name__}:Choosing", "python")
            if isinstance(features, str)
            else ModelSpec(f"{__name__}:Plain", "python", features)
        ),
        input=ParquetInput(("secret",)),
        output=ParquetOutput("scores", "overwrite", columns),
        rejects=Rejects("rejects", 1.0),
    )
    folder = Path("job").absolute()

    if refusal is None:
        result = attempt.run(attempt.prepare(replace(job, spec=spec), folder), AlwaysOpen())
        assert result.counts == Counts(scored=9, rejected=1)
        assert pq.read_table("rejects").column_names[:2] == ["id", "value"]
    else:
        with pytest.raises(
            InputError, match=re.escape(f"column 'note' is encrypted, and Penstock has no key{refusal}")
        ):
            attempt.prepare(replace(job, spec=spec), folder)


class Plain:
    """Declares no features, and refuses the id 7."""

    output_schema = pa.schema([("score", pa.float64())])

    def predict(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        if 7.0 in rows["value"].to_pylist():
            raise ValueError("7 is refused")
        return pa.record_batch({"score": rows["value"]})


class Choosing(Plain):
    """Says itself which columns it reads."""

    features = ("value",)
