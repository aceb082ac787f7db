"""A job whose memory stays short goes on one span at a time, to the same result."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.running import run_graph
from predictors.pressure import PRESSURE
from tests.scenes import numbered_rows, published_rows, scene
from transforms.publish import publish


@pytest.fixture
def pressure() -> Iterator[None]:
    """High, and never cleared."""
    PRESSURE.reset()
    PRESSURE.raise_level()
    yield
    PRESSURE.reset()


@pytest.mark.usefixtures("pressure")
@pytest.mark.timeout(60)
def test_a_job_comes_to_its_end_while_memory_is_short(tmp_path: Path) -> None:
    small = scene(tmp_path, numbered_rows(3000), files=2)
    run = small.run()
    run_graph(run, "direct")
    publish(run.publication)

    assert published_rows(tmp_path / "scores") == [(i, 2.0 * i) for i in range(3000)]
    assert PRESSURE.is_high
