"""What a job looks at before it replaces a folder; the rest is told where jobs are run."""

from pathlib import Path

import pytest

from launcher.worker.apart import check_apart
from pipelines.spec import JobSpec, ParquetOutput, SqlInput
from predictors.base import ModelSpec
from predictors.bounds import Bounds
from transforms.errors import OutputError


def test_files_behind_a_link_that_leads_elsewhere_are_not_named(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "secret.txt").touch()
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "out").symlink_to(tmp_path / "other")
    output = ParquetOutput(str(tmp_path / "own" / "out"), "overwrite")
    spec = JobSpec(ModelSpec("model:Model", "python"), SqlInput("postgresql://h/db", "SELECT 1"), output)

    with pytest.raises(OutputError, match="leads out of the folders") as caught:
        check_apart(spec, None, Bounds((str(tmp_path / "own"),)))
    assert "secret" not in str(caught.value)
    with pytest.raises(OutputError, match=r"holds secret\.txt"):
        check_apart(spec, None)
