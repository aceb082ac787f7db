"""What is reckoned from a sample: how long a job takes, and how much memory."""

from dataclasses import replace
from typing import Any

import pytest

from launcher.estimate.forecast import MIB, Sample, Work, forecast, scored_s
from transforms.sources.input import Copying

# A model that computes: two threads make it twice as fast.
COMPUTING = Sample(
    rows=1000,
    read_s=1e-7,
    write_s=1e-7,
    score_s=1e-6,
    alone_s=2e-6,
    score_cpu_s=2e-6,
    threads=2,
    row_bytes=20,
    answer_bytes=8,
    scored_bytes=16,
)
# One that waits for a service: 0.1 s a call of 1,000 rows, with four calls at once.
WAITING = replace(COMPUTING, score_s=2.5e-5, alone_s=1e-4, score_cpu_s=1e-7, threads=4)
# One that holds the interpreter: four threads are as fast as one.
HOLDING = replace(COMPUTING, score_s=1e-4, alone_s=1e-4, score_cpu_s=1e-4, threads=4)
WORK = Work(rows=100_000_000, batch_rows=1000, span_rows=65_000, workers=2, cores=2, writers=2, loads=1)

# A span is a batch at least.
WHOLE = {"workers": 4, "batch_rows": 65_000}


@pytest.mark.parametrize(
    ("sample", "changes", "seconds"),
    [
        pytest.param(COMPUTING, {}, 100, id="as timed"),
        pytest.param(COMPUTING, {"workers": 8}, 100, id="no more than the cores give"),
        pytest.param(replace(COMPUTING, threads=1, score_s=2e-6), {}, 100, id="threads that were not tried help"),
        pytest.param(WAITING, {"workers": 4}, 2500, id="waits overlap"),
        pytest.param(WAITING, {"workers": 40}, 250, id="more of them overlap more"),
        pytest.param(WAITING, {"workers": 4, "rows": 65_000}, 1.7, id="all threads get their share"),
        pytest.param(WAITING, WHOLE | {"rows": 65_000}, 6.5, id="a single batch is scored by one thread"),
        pytest.param(WAITING, WHOLE | {"rows": 200_000}, 6.5, id="a few batches side by side"),
        pytest.param(WAITING, WHOLE | {"rows": 300_000}, 13, id="one batch more than threads"),
        pytest.param(HOLDING, {"workers": 4}, 10_000, id="threads that wait for each other"),
        pytest.param(HOLDING, {"workers": 4, "rows": 200_000}, 20, id="and with few spans no longer than one alone"),
        pytest.param(Sample(), {"rows": 0}, 0, id="nothing"),
    ],
)
def test_scoring_takes(sample: Sample, changes: dict[str, Any], seconds: float) -> None:
    assert scored_s(sample, replace(WORK, **changes)) == pytest.approx(seconds, rel=0.02)


def test_the_slowest_of_all_sets_the_pace() -> None:
    start_s = forecast(COMPUTING, replace(WORK, rows=0)).likely_s
    reading = forecast(replace(COMPUTING, read_s=5e-6), WORK).likely_s - start_s
    writing = forecast(replace(COMPUTING, write_s=1e-5), WORK).likely_s - start_s

    assert reading == pytest.approx(500)
    # Two threads write, and they and the model share the cores.
    assert writing == pytest.approx(100e6 * (1e-7 + 2e-6 + 1e-5) / 2)


def test_a_query_is_read_before_anything_is_scored() -> None:
    query = Copying(prepare_s=3, row_s=1e-6, rows=1000)
    more_s = forecast(COMPUTING, replace(WORK, copying=query)).likely_s - forecast(COMPUTING, WORK).likely_s

    assert more_s == pytest.approx(103)


def test_a_table_takes_time_for_each_value() -> None:
    files = forecast(COMPUTING, WORK).likely_s
    tables = {
        (table, columns): forecast(COMPUTING, replace(WORK, table=table, columns=columns)).likely_s - files
        for table in ("postgres", "sqlite")
        for columns in (2, 20)
    }

    assert tables["sqlite", 20] == pytest.approx(10 * tables["sqlite", 2])
    assert 0 < tables["postgres", 2] < tables["sqlite", 2]


@pytest.mark.parametrize("sample", [COMPUTING, WAITING, HOLDING, Sample()], ids=["cpu", "waits", "holds", "none"])
@pytest.mark.parametrize("rows", [0, 1, 1000, 10**9])
@pytest.mark.parametrize("is_warm", [True, False])
def test_the_likely_time_lies_between_the_others(sample: Sample, rows: int, is_warm: bool) -> None:
    expected = forecast(sample, replace(WORK, rows=rows, is_warm=is_warm, table="sqlite"))

    assert 0 < expected.low_s < expected.likely_s < expected.high_s


def test_what_was_not_tried_widens_the_range() -> None:
    tried = forecast(HOLDING, replace(WORK, workers=4))
    untried = forecast(replace(HOLDING, threads=1), replace(WORK, workers=4))

    assert untried.likely_s < tried.likely_s
    assert untried.high_s == pytest.approx(tried.high_s)
    assert "did not try whether 4 threads are faster than 1" in " ".join(untried.assumptions)


def test_models_count_as_often_as_they_are_loaded() -> None:
    model = replace(COMPUTING, model_bytes=500 * MIB, library_bytes=100 * MIB, load_s=7, library_s=2)
    once, five = (forecast(model, replace(WORK, loads=loads)) for loads in (1, 5))

    assert once.memory_bytes - forecast(COMPUTING, WORK).memory_bytes == 600 * MIB
    assert five.memory_bytes - once.memory_bytes == 2000 * MIB
    assert five.likely_s - once.likely_s == pytest.approx(28)
    assert "the model is loaded 5 times, as it does not say that it is thread-safe" in five.assumptions


def test_memory_does_not_grow_with_the_rows_beyond_what_moves_at_once() -> None:
    few, many, more = (forecast(COMPUTING, replace(WORK, rows=rows)).memory_bytes for rows in (1000, 10**7, 10**9))

    assert few < many == more
    assert few - 290 * MIB < MIB


def test_wide_rows_are_bounded_by_their_bytes() -> None:
    wide = replace(COMPUTING, row_bytes=100_000, answer_bytes=8, scored_bytes=100_000)
    expected = forecast(wide, replace(WORK, span_rows=1000, workers=100))

    # 256 MiB in flight and a span, five that are read ahead, three parts of 64 MiB.
    assert expected.memory_bytes - 290 * MIB == pytest.approx((256 + 192) * MIB + 6 * 1e8, rel=0.01)


def test_the_mapped_file_counts() -> None:
    assert (
        forecast(COMPUTING, replace(WORK, mapped_bytes=70 * MIB)).memory_bytes - forecast(COMPUTING, WORK).memory_bytes
        == 70 * MIB
    )


def test_assumptions_are_sentences_that_say_what_was_measured_and_what_was_not() -> None:
    query = Copying(prepare_s=1.25, row_s=1 / 1_234_567, rows=262_144)
    work = replace(WORK, copying=query, table="postgres", columns=2, is_warm=True)

    assert forecast(replace(COMPUTING, rows=123_000), work).assumptions == [
        "123,000 rows were timed; the model scores 1,000,000 rows/s with 2 threads at once",
        "all rows are taken to be like them",
        "the job scores with 2 threads on 2 cores, and nothing else runs on them",
        "the database gave 262,144 rows at 1,200,000 rows/s, 1.2 s after it was asked; "
        "the others are taken to come as fast",
        "the destination's speed was not measured: it is taken to write 1,000,000 rows/s",
        "the process starts warm, from one that has its libraries",
    ]
    assert forecast(Sample(), replace(WORK, rows=0, workers=1, cores=1)).assumptions == [
        "there was no row to be timed",
        "the job scores with 1 thread on 1 core, and nothing else runs on them",
        "a new process imports Beam",
    ]
