"""Pages of folders, read in processes of their own: the same as read here, and a hostile file harms nobody."""

import json
import resource
import struct
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from launcher.errors import NoRejects, ResultGone, ResultUnreadable
from launcher.rows.folderpages import FoldersAside
from launcher.rows.results import FolderResult, result_page
from predictors.bounds import Bounds
from tests.unit.launcher_parts import warm_forks

BOMB_BYTES = 1_200_000_000


@pytest.fixture(scope="module")
def aside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FoldersAside]:
    folder = tmp_path_factory.mktemp("forks")
    with warm_forks(folder, "launcher.forks.aside", "launcher.rows.folderpages") as forks:
        yield FoldersAside(forks, str(folder), {})


@pytest.fixture
def place(tmp_path: Path) -> FolderResult:
    """Rows of a job's rejects, in two files."""
    folder = tmp_path / "rejects"
    folder.mkdir()
    names = ["part-0.parquet", "part-1.parquet"]
    manifest = {"job_id": "batch-1", "counts": {}, "files": [{"name": name} for name in names]}
    (folder / "_manifest.json").write_text(json.dumps(manifest))
    for start, name in zip((0, 5), names, strict=True):
        ids = range(start, start + 5)
        rows = {"x": [*ids], "position": [f"f:{n}" for n in ids], "error_type": ["E"] * 5, "error": ["no"] * 5}
        pq.write_table(pa.table(rows), folder / name)
    return FolderResult(str(folder), "batch-1", Bounds((str(tmp_path),)))


def test_a_page_is_the_same_as_read_here(aside: FoldersAside, place: FolderResult) -> None:
    for offset, limit in ((0, 3), (4, 3), (9, 3), (10, 3)):
        here, there = result_page(place, offset, limit), aside.results(place, offset, limit)
        assert there.rows.equals(here.rows)
        assert there.next_offset == here.next_offset


def test_of_rejects_our_columns_come_first(aside: FoldersAside, place: FolderResult) -> None:
    page = aside.rejects(place, 3, 4)

    assert page.rows.column_names == ["position", "error_type", "error", "x"]
    assert page.rows["x"].to_pylist() == [3, 4, 5, 6]
    assert page.next_offset == 7
    assert aside.reject_columns(place) == ("x",)


def test_what_is_wrong_is_told_in_the_same_words(aside: FoldersAside, place: FolderResult) -> None:
    other = FolderResult(place.path, "batch-2", place.within)
    with pytest.raises(ResultGone, match="now holds the result of another job, batch-1"):
        aside.results(other, 0, 1)
    with pytest.raises(NoRejects, match="holds the rejects of batch-1, which ran after batch-2"):
        aside.rejects(other, 0, 1)


def test_a_footer_of_gigabytes_is_refused_and_takes_nothing_here(aside: FoldersAside, place: FolderResult) -> None:
    with open(Path(place.path, "part-0.parquet"), "wb") as file:
        file.write(b"PAR1")
        file.seek(BOMB_BYTES)
        file.write(struct.pack("<I", BOMB_BYTES - 4) + b"PAR1")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    for read in (aside.results, aside.rejects):
        with pytest.raises(ResultUnreadable):
            read(place, 0, 1)
    with pytest.raises(ResultUnreadable):
        aside.reject_columns(place)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024
