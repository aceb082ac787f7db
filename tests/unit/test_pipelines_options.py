"""What Beam is told, and what it is kept from asking again and again."""

import apache_beam as beam
import pytest
from apache_beam.coders import VarIntCoder
from apache_beam.options.pipeline_options import DirectOptions, StandardOptions
from apache_beam.transforms import userstate

from pipelines.inspection import remember_dofn_specs
from pipelines.options import make_pipeline


class _Counting(beam.DoFn):
    SEEN = userstate.ReadModifyWriteStateSpec("seen", VarIntCoder())

    def process(self, element: tuple[str, int], seen=beam.DoFn.StateParam(SEEN)):  # type: ignore[no-untyped-def]
        yield element


def test_what_beam_finds_in_a_dofn_is_the_same_and_looked_for_once() -> None:
    looked: list[beam.DoFn] = []
    original = userstate.get_dofn_specs
    userstate.get_dofn_specs = lambda dofn: looked.append(dofn) or original(dofn)
    try:
        remember_dofn_specs()
        remember_dofn_specs()
        plain, stateful = beam.DoFn(), _Counting()
        answers = [userstate.get_dofn_specs(each) for each in (plain, stateful, plain, stateful)]
        is_stateful = [userstate.is_stateful_dofn(each) for each in (plain, stateful)]
    finally:
        userstate.get_dofn_specs = original

    assert looked == [plain, stateful]
    assert answers == [original(each) for each in (plain, stateful, plain, stateful)]
    assert is_stateful == [False, True]


def test_views_of_the_options_are_made_once_and_share_their_values() -> None:
    options = make_pipeline("direct").options
    options.view_as(StandardOptions).streaming = True

    assert options.view_as(DirectOptions) is options.view_as(DirectOptions)
    assert options.view_as(DirectOptions).direct_num_workers == 1
    assert options.view_as(StandardOptions).streaming is True


def test_an_unknown_runner_is_refused() -> None:
    with pytest.raises(ValueError, match="runner 'spark' is not known; use direct"):
        make_pipeline("spark")
