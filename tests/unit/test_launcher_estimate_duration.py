"""How long a job will take, by past ones: what is fixed and what rows cost are never mistaken for each other."""

import pytest

from launcher.estimate.duration import USUAL_FIXED_S, Probe, estimated_s, is_known, usual_fixed_s
from launcher.state.store import Past

# A start of 7 s, as in a cold service, and a model that takes a microsecond for a row.
COLD_S, ROW_S = 7.0, 1e-6


def past(rows: int, fixed_s: float = COLD_S, row_s: float = ROW_S, warm_up_s: float = 0.01) -> Past:
    score_s = warm_up_s + rows * row_s
    return Past(rows, fixed_s + score_s, score_s, 1000, 1)


def within(told_s: float, true_s: float) -> bool:
    return true_s / 3 < told_s < true_s * 3


def test_what_small_jobs_cost_is_not_their_rows() -> None:
    small = [past(10), past(100), past(20)]

    assert within(estimated_s(150_000, 1000, small, probe=Probe(row_s=ROW_S)), 7.15)
    assert within(estimated_s(50, 1000, small), 7.0)


@pytest.mark.parametrize(
    ("jobs", "rows", "true_s"),
    [
        ([past(1_000_000), past(100)], 50_000_000, 57),
        ([past(10_000_000, 0.7)], 100, 0.7),
        ([past(10_000_000, 0.7)], 10_000_000, 10.7),
        ([past(1000, 0.7, 0.01)], 10, 0.8),
        ([past(1000, 0.7, 0.01)], 20_000, 200.7),
        ([past(2_000_000, 12, 5e-6), past(10, 12)], 20_000_000, 112),
    ],
    ids=["of two sizes", "of large ones a small", "as always", "slow, few", "slow, many", "load and rows"],
)
def test_what_past_jobs_of_several_sizes_say_holds_for_others(jobs: list[Past], rows: int, true_s: float) -> None:
    assert within(estimated_s(rows, 1000, jobs, 0.7), true_s)


def test_rows_that_are_moved_rather_than_scored_count_as_rows() -> None:
    # Two million rows into a table: 2 s of the model, 20 s of the database.
    tables = [Past(2_000_000, 23, 2, 1000, 1)]

    assert within(estimated_s(20_000_000, 1000, tables), 221)
    assert within(estimated_s(1000, 1000, tables), 1)


def test_a_first_job_is_told_by_its_model_tried() -> None:
    assert estimated_s(1000, 100, [], 1.0, Probe(row_s=0.01)) == pytest.approx(11)
    assert estimated_s(1000, 100, [], 1.0, Probe(call_s=0.5, threads=4)) == pytest.approx(1 + 10 * 0.5 / 4)
    # One call is one thread's.
    assert estimated_s(100, 100, [], 1.0, Probe(call_s=0.5, threads=4)) == pytest.approx(1.5)
    assert estimated_s(10, 100, [], 1, Probe(load_s=5)) == pytest.approx(6, abs=0.01)
    assert estimated_s(0, 1000, []) == USUAL_FIXED_S


def test_a_model_is_tried_where_past_jobs_are_few_rows_of_many() -> None:
    large = past(1_000_000)

    assert not is_known(1, [])
    assert is_known(200, [past(100)])
    assert not is_known(201, [past(100)])
    assert is_known(10**9, [past(2_000_000)])
    assert not is_known(10**9, [past(100, row_s=0.1)])
    assert is_known(2_000_000, [large, past(10)])


def test_the_start_is_that_of_the_home_s_jobs() -> None:
    assert usual_fixed_s([]) == USUAL_FIXED_S
    assert usual_fixed_s([past(10, 0.6), past(100, 0.5), past(10, 40)]) == pytest.approx(0.6, abs=0.1)


@pytest.mark.parametrize("job", [Past(0, 3, 0), Past(10, 0, 5), Past(10**15, 1e12, 1e12), Past(1, -5, -5)])
def test_odd_jobs_spoil_no_number(job: Past) -> None:
    for rows in (0, 1, 10**15):
        assert 0.1 <= estimated_s(rows, 1000, [job]) <= 1e9
