"""What is opened within bounds: judged by where it lies, and used whatever takes its name."""

import os
import pickle
from pathlib import Path

import pytest

from predictors.bounds import Bounds, LedElsewhere, at


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder beside another's, whose file and folder links in it lead to."""
    for folder in ("own/sub", "own/closed", "other/sub"):
        (tmp_path / folder).mkdir(parents=True)
    for file in ("own/file", "own/sub/file", "own/closed/file", "other/file", "other/sub/file"):
        (tmp_path / file).write_text(file)
    own = tmp_path / "own"
    (own / "inwards").symlink_to(own / "sub" / "file")
    (own / "outwards").symlink_to(tmp_path / "other" / "file")
    (own / "elsewhere").symlink_to(tmp_path / "other")
    return own


@pytest.fixture
def bounds(own: Path) -> Bounds:
    return Bounds((str(own),), closed=(str(own / "closed"),))


def read(bounds: Bounds, file: Path, *, follow: bool = True) -> str:
    with bounds.opened(file, follow=follow) as fd:
        return Path(at(fd)).read_text()


def test_a_file_is_read_by_its_name_and_by_a_link_that_stays_inside(own: Path, bounds: Bounds) -> None:
    assert read(bounds, own / "file") == "own/file"
    assert read(bounds, own / "inwards") == "own/sub/file"


@pytest.mark.parametrize("name", ["outwards", "elsewhere/sub/file", "../other/file", "closed/file", "sub"])
def test_what_lies_elsewhere_or_is_no_plain_file_is_not_read(own: Path, bounds: Bounds, name: str) -> None:
    with pytest.raises(LedElsewhere) as caught:
        read(bounds, own / name)

    assert "other" not in str(caught.value)


def test_where_no_link_is_followed_not_even_one_that_stays_inside_is(own: Path, bounds: Bounds) -> None:
    assert read(bounds, own / "file", follow=False) == "own/file"
    with pytest.raises(LedElsewhere):
        read(bounds, own / "inwards", follow=False)


def test_a_pipe_that_nobody_writes_into_is_not_waited_for(own: Path, bounds: Bounds) -> None:
    os.mkfifo(own / "pipe")

    with pytest.raises(LedElsewhere):
        read(bounds, own / "pipe")


def test_bounds_may_be_links_themselves_and_are_handed_to_other_processes(own: Path, bounds: Bounds) -> None:
    (own.parent / "named").symlink_to(own)
    named = pickle.loads(pickle.dumps(Bounds((str(own.parent / "named"),))))

    assert read(named, own / "file") == "own/file"
    with pytest.raises(LedElsewhere):
        read(named, own / "outwards")


def test_a_folder_that_is_held_stays_the_same_whatever_takes_its_name(own: Path, bounds: Bounds) -> None:
    held = bounds.held(own / "sub")
    (own / "sub").rename(own / "aside")
    (own / "sub").symlink_to(own.parent / "other" / "sub")

    assert (held / "file").read_text() == "own/sub/file"
    assert bounds.held(own / "aside") == held
    with pytest.raises(LedElsewhere):
        bounds.held(own / "sub")


def test_a_folder_is_open_no_longer_than_its_block(own: Path, bounds: Bounds) -> None:
    with bounds.opened_folder(own / "sub") as folder:
        assert (folder / "file").read_text() == "own/sub/file"

    assert not folder.exists()


@pytest.mark.parametrize("name", ["elsewhere", "elsewhere/sub", "closed", "..", "outwards"])
def test_a_folder_that_lies_elsewhere_is_not_held(own: Path, bounds: Bounds, name: str) -> None:
    with pytest.raises(OSError) as caught:
        bounds.held(own / name)

    assert "other" not in str(caught.value.strerror)


def test_folders_are_made_where_they_are_missing(own: Path, bounds: Bounds) -> None:
    held = bounds.made(own / "a" / "b")
    (held / "file").touch()
    fresh = Bounds((str(own / "new" / "tenant"),)).made(own / "new" / "tenant" / "out")

    assert (own / "a" / "b" / "file").exists()
    assert os.readlink(fresh) == str(own / "new" / "tenant" / "out")


def test_none_is_made_behind_a_link_that_leads_elsewhere(own: Path, bounds: Bounds) -> None:
    with pytest.raises(LedElsewhere):
        bounds.made(own / "elsewhere" / "new" / "out")

    assert sorted(path.name for path in (own.parent / "other").iterdir()) == ["file", "sub"]
