"""Walks through folders: what they find, and that they come to an end."""

import glob
import itertools
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from transforms.errors import InputError
from transforms.sources import walking
from transforms.sources.files import find_files, named_files
from transforms.sources.walking import walk_folder, walk_pattern

FILES = (
    "a.parquet",
    "b.csv",
    ".c.parquet",
    "_d.parquet",
    "x/a.parquet",
    "x/y/a.parquet",
    ".h/a.parquet",
    "_u/a.parquet",
)
PARTS = ("*", "**", "x", "a*", "?", ".*", "[xy]", "*.parquet", "a.parquet")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for file in FILES:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "dangling.parquet").symlink_to("nowhere")
    return tmp_path


def names(found: Iterator[str], folder: Path) -> list[str]:
    return sorted(os.path.relpath(file, folder) for file in found)


def test_a_folder_holds_its_data_and_that_of_the_folders_below(folder: Path) -> None:
    (folder / "linked").symlink_to(folder / "x")
    (folder / "z.parquet").mkdir()
    (folder / "z.parquet" / "in.parquet").touch()

    assert names(walk_folder(str(folder)), folder) == [
        "a.parquet",
        "dangling.parquet",
        "x/a.parquet",
        "x/y/a.parquet",
        "z.parquet/in.parquet",
    ]


@pytest.mark.parametrize("is_relative", [False, True])
def test_a_pattern_names_what_glob_says_each_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, is_relative: bool
) -> None:
    monkeypatch.chdir(folder)
    start = "" if is_relative else f"{folder}/"

    for parts in itertools.chain.from_iterable(itertools.product(PARTS, repeat=n) for n in (1, 2, 3)):
        pattern = start + "/".join(parts)
        if glob.has_magic(pattern):
            wanted = {file for file in glob.iglob(pattern, recursive=True) if os.path.isfile(file)}
            assert sorted(walk_pattern(pattern)) == sorted(wanted), pattern


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*/../a.parquet", ["_u/../a.parquet", "empty/../a.parquet", "x/../a.parquet"]),
        ("*/", []),
        ("**/", []),
        ("[x]//y/./*", ["x/y/a.parquet"]),
    ],
)
def test_dots_and_slashes_mean_what_they_mean_to_the_system(folder: Path, pattern: str, found: list[str]) -> None:
    files = [
        os.path.relpath(file, folder) if ".." not in file else file for file in walk_pattern(f"{folder}/{pattern}")
    ]

    assert sorted(file.removeprefix(f"{folder}/") for file in files) == found


def test_links_are_followed_but_not_in_circles(folder: Path) -> None:
    (folder / "x" / "back").symlink_to(folder)
    (folder / "x" / "self").symlink_to(".")
    (folder / "empty" / "other").symlink_to(folder / "x" / "y")

    found = names(walk_pattern(f"{folder}/**/a.parquet"), folder)

    assert found == ["_u/a.parquet", "a.parquet", "empty/other/a.parquet", "x/a.parquet", "x/y/a.parquet"]


@pytest.mark.parametrize("between", ["", "*/", "x/**/"], ids=["one after the other", "with a folder", "with a name"])
def test_a_pattern_of_very_many_parts_is_held_against_each_folder_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, between: str
) -> None:
    for n in range(3):
        (tmp_path / f"{n}" / "x" / "x" / "x" / "x" / "x").mkdir(parents=True)
    visited: list[str] = []
    scandir = os.scandir

    def noted(folder: str) -> Iterator["os.DirEntry[str]"]:
        visited.append(folder)
        return scandir(folder)

    monkeypatch.setattr(walking.os, "scandir", noted)

    # `glob` takes longer than anybody has: the ways there are grow with the power of the stars.
    assert list(walk_pattern(f"{tmp_path}/" + f"**/{between}" * 100 + "nothing")) == []
    assert len(visited) == len(set(visited)) <= 19


@pytest.mark.parametrize("walk", [walk_folder, lambda folder, deadline: walk_pattern(f"{folder}/**/none", deadline)])
@pytest.mark.parametrize(("kind", "deadline"), [("files", 5), ("folders", 25)])
def test_a_walk_that_finds_nothing_ends_in_time(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    walk: Callable[[str, float], Iterator[str]],
    kind: str,
    deadline: int,
) -> None:
    for n in range(20):
        (tmp_path / f"{n}").touch() if kind == "files" else (tmp_path / f"{n}").mkdir()
    # Each look at the clock takes a second: the folder and what is in it 21.
    looks = iter(range(1000))
    monkeypatch.setattr(walking.time, "monotonic", lambda: next(looks))

    with pytest.raises(TimeoutError):
        list(walk(str(tmp_path), deadline))

    assert next(looks) == deadline + 1


@pytest.mark.parametrize("paths", [["{}"], ["{}/*.parquet"], ["{}/a.parquet"]], ids=["folder", "pattern", "file"])
def test_nothing_is_looked_at_when_it_is_over(folder: Path, paths: list[str]) -> None:
    given = [path.format(folder) for path in paths]

    with pytest.raises(TimeoutError):
        list(named_files(given, time.monotonic()))
    assert list(named_files(given, math.inf))


def test_a_folder_that_cannot_be_read_is_named(folder: Path) -> None:
    long = f"{folder}/" + "n" * 300

    with pytest.raises(InputError, match=r"n{300} cannot be read: File name too long"):
        find_files([f"{long}/*"])


def test_a_folder_that_is_closed_to_us_or_gone_is_left_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def closed(path: str) -> Iterator["os.DirEntry[str]"]:
        if path.endswith("/x"):
            raise PermissionError(path)
        return scandir(path)

    monkeypatch.setattr(walking.os, "scandir", closed)

    assert "a.parquet" in names(walk_folder(str(folder)), folder)
    assert "x/a.parquet" not in names(walk_pattern(f"{folder}/**/a.parquet"), folder)
