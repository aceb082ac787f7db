"""Published rejects, opened for a job that scores them again: they are the job's own, whatever links lead elsewhere."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from launcher.errors import NoRejects
from launcher.rows.rejects import opened_rejects, rejects_path
from launcher.state.job import Job
from pipelines.spec import JobSpec, ParquetInput, ParquetOutput
from predictors.base import ModelSpec
from predictors.bounds import Bounds

JOB = "batch-1"


def publish(folder: Path, word: str) -> None:
    folder.mkdir(parents=True)
    (folder / "_manifest.json").write_text(
        json.dumps({"job_id": JOB, "counts": {}, "files": [{"name": f"part-{n}.parquet"} for n in range(2)]})
    )
    for n in range(2):
        rows = {"x": [word], "position": ["f:1"], "error_type": ["E"], "error": ["no"]}
        pq.write_table(pa.table(rows), folder / f"part-{n}.parquet")


@dataclass(frozen=True)
class Place:
    """A tenant's folder with rejects of a job, and another tenant's that looks the same."""

    root: Path

    @property
    def own(self) -> Path:
        return self.root / "own" / "sub" / "rejects"

    @property
    def other(self) -> Path:
        return self.root / "other" / "sub" / "rejects"

    @property
    def bounds(self) -> Bounds:
        return Bounds((str(self.root / "own"),))

    @property
    def job(self) -> Job:
        spec = JobSpec(ModelSpec("m", "onnx"), ParquetInput(("in",)), ParquetOutput("out"))
        return replace(Job(JOB, spec, "/", datetime.now(UTC)), rejects=str(self.own))

    def take(self, within: Bounds | None) -> list[str]:
        """What a job gets to read."""
        target = self.root / "job" / "input"
        target.parent.mkdir(exist_ok=True)
        with opened_rejects(rejects_path(self.job), self.job.id, within) as rejects:
            assert rejects.input_columns() == ["x"]
            rejects.link_into(target)
        assert all(path.is_file() and not path.is_symlink() for path in target.iterdir())
        return [pq.read_table(path).column("x")[0].as_py() for path in sorted(target.iterdir())]

    def link_file(self) -> None:
        (self.own / "part-1.parquet").unlink()
        (self.own / "part-1.parquet").symlink_to(self.other / "part-1.parquet")

    def link_folder(self) -> None:
        self.own.rename(self.own.parent / "aside")
        self.own.symlink_to(self.other)

    def link_above(self) -> None:
        self.own.parent.rename(self.root / "aside")
        self.own.parent.symlink_to(self.other.parent)

    def link_manifest(self) -> None:
        (self.own / "_manifest.json").unlink()
        (self.own / "_manifest.json").symlink_to(self.other / "_manifest.json")

    def put_pipe(self) -> None:
        (self.own / "part-1.parquet").unlink()
        os.mkfifo(self.own / "part-1.parquet")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    publish(place.own, "own")
    publish(place.other, "secret")
    return place


@pytest.mark.parametrize("is_bounded", [True, False])
def test_the_files_are_linked_under_their_names_and_stay_though_they_are_removed(
    place: Place, is_bounded: bool
) -> None:
    files = {path.name: path.stat().st_ino for path in place.own.glob("*.parquet")}

    assert place.take(place.bounds if is_bounded else None) == ["own", "own"]
    assert {path.name: path.stat().st_ino for path in (place.root / "job" / "input").iterdir()} == files


def test_they_are_copied_where_they_cannot_be_linked(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("another disk")

    monkeypatch.setattr(os, "link", refuse)

    assert place.take(place.bounds) == ["own", "own"]


def test_who_has_linked_them_before_has_done_it(place: Place) -> None:
    place.take(place.bounds)

    assert place.take(place.bounds) == ["own", "own"]
    assert [path.name for path in (place.root / "job").iterdir()] == ["input"]


@pytest.mark.parametrize(
    "exchange",
    [Place.link_file, Place.link_folder, Place.link_above, Place.link_manifest, Place.put_pipe],
    ids=lambda each: each.__name__,
)
def test_nothing_is_taken_through_a_link_that_leads_elsewhere(place: Place, exchange: Callable[[Place], None]) -> None:
    exchange(place)

    with pytest.raises(NoRejects) as caught:
        place.take(place.bounds)
    assert "other" not in str(caught.value)
    assert not (place.root / "job" / "input").exists()


def test_what_takes_the_files_names_once_they_are_open_is_not_taken(place: Place) -> None:
    (place.root / "job").mkdir()
    with opened_rejects(rejects_path(place.job), place.job.id, place.bounds) as rejects:
        place.link_file()
        rejects.link_into(place.root / "job" / "input")

    taken = pq.read_table(place.root / "job" / "input" / "part-1.parquet")
    assert taken.column("x").to_pylist() == ["own"]
