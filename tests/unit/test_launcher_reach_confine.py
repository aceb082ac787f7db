"""Local paths of a request stay in the folders that it may name."""

import glob
import os
from pathlib import Path

import pytest

from launcher.errors import PathForbidden, TenantUnreadable
from launcher.reach.confine import Confinement

OUTSIDE = "is outside of the folders that a request may name; write a path below them, relative ones start there"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two folders that are open, one that is not, and links to and fro."""
    root = Path(os.path.realpath(tmp_path))
    for name in ("open/data/deep", "second", "secret/deep", "openly"):
        (root / name).mkdir(parents=True)
    for name in (
        "open/data/a.parquet",
        "open/data/b.parquet",
        "second/c.parquet",
        "secret/s.parquet",
        "open/x[1].parquet",
    ):
        (root / name).touch()
    (root / "open" / "out").symlink_to(root / "secret")
    (root / "open" / "across").symlink_to(root / "second")
    (root / "open" / "dangling").symlink_to(root / "secret" / "none")
    (root / "open" / "data" / "linked.parquet").symlink_to(root / "secret" / "s.parquet")
    (root / "open" / "loop").symlink_to(root / "open" / "loop")
    (root / "open" / "o[u]t").symlink_to(root / "secret")
    (root / "alias").symlink_to(root / "open")
    return root


@pytest.fixture
def confinement(root: Path) -> Confinement:
    return Confinement((root / "open", root / "second"))


@pytest.mark.parametrize(
    ("path", "real"),
    [
        ("data/a.parquet", "open/data/a.parquet"),
        ("./data//a.parquet", "open/data/a.parquet"),
        ("data/deep/../a.parquet", "open/data/a.parquet"),
        ("data/", "open/data"),
        (".", "open"),
        ("{root}/open", "open"),
        ("{root}/open/data/a.parquet", "open/data/a.parquet"),
        ("{root}/second/c.parquet", "second/c.parquet"),
        ("{root}/alias/data", "open/data"),
        ("../second/c.parquet", "second/c.parquet"),
        ("../secret/../second/c.parquet", "second/c.parquet"),
        ("across/c.parquet", "second/c.parquet"),
        ("new/none/yet.parquet", "open/new/none/yet.parquet"),
        ("new/../other", "open/other"),
        ("across/new", "second/new"),
        ("x[1].parquet", "open/x[1].parquet"),
        ("a~b", "open/a~b"),
        ("file:///etc/passwd", "open/file:/etc/passwd"),
        ("$HOME", "open/$HOME"),
    ],
)
def test_a_path_inside_comes_back_as_it_is_really(confinement: Confinement, root: Path, path: str, real: str) -> None:
    confined = confinement.confined("input.path", path.replace("{root}", str(root)))

    assert confined == str(root / real)
    assert confinement.confined("input.path", confined) == confined


@pytest.mark.parametrize(
    "path",
    [
        "..",
        "../secret",
        "../secret/s.parquet",
        "../secret/none",
        "../openly",
        "data/../../secret",
        "/",
        "/etc/passwd",
        "//etc/passwd",
        "{root}/secret/s.parquet",
        "{root}/open/../secret",
        "{root}/openly/x",
        "{root}",
        "out",
        "out/s.parquet",
        "out/none",
        "out/none/../s.parquet",
        "out/../secret/s.parquet",
        "dangling",
        "dangling/x",
        "data/linked.parquet",
        "across/../secret/s.parquet",
        "new/../../secret",
        "o[u]t",
        "o[u]t/s.parquet",
        "{root}/alias/out/s.parquet",
    ],
)
def test_a_path_outside_is_refused_alike_whether_it_exists_or_not(
    confinement: Confinement, root: Path, path: str
) -> None:
    with pytest.raises(PathForbidden) as caught:
        confinement.confined("input.path", path.replace("{root}", "/r"))

    assert str(caught.value) == f"input.path {path.replace('{root}', '/r')!r} {OUTSIDE}"
    with pytest.raises(PathForbidden):
        confinement.confined("input.path", path.replace("{root}", str(root)))


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("", "is empty; write a path"),
        ("a\0b", "'a\\x00b' has a character that no path has; leave it out"),
        ("\ud800", "has a character that no path has; leave it out"),
        ("~", "begins with ~, and the service's home folder is not for jobs; leave it out"),
        ("~/x", "begins with ~"),
        ("~root/x", "begins with ~"),
        ("../" + "x" * 10_000, "x…' is outside of"),
    ],
)
def test_odd_paths_are_told(confinement: Confinement, path: str, reason: str) -> None:
    with pytest.raises(PathForbidden) as caught:
        confinement.confined("input.path", path)

    assert reason in str(caught.value)
    assert len(str(caught.value)) < 300


def test_a_link_that_leads_to_itself_leads_nowhere(confinement: Confinement, root: Path) -> None:
    assert confinement.confined("input.path", "loop/x").startswith(str(root / "open" / "loop"))


def test_what_is_replaced_as_a_whole_lies_below_a_folder(confinement: Confinement, root: Path) -> None:
    for path in (".", "", "data/..", str(root / "second"), "across", str(root / "alias")):
        with pytest.raises(PathForbidden):
            confinement.confined("output.path", path, globs=False, below=True)

    assert confinement.confined("output.path", "scores", globs=False, below=True) == str(root / "open" / "scores")


# --- globs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "confined"),
    [
        ("data/*.parquet", "open/data/*.parquet"),
        ("*/a.parquet", "open/*/a.parquet"),
        ("*", "open/*"),
        ("**/*.parquet", "open/**/*.parquet"),
        ("across/?.parquet", "second/?.parquet"),
        ("data/deep/../[ab].parquet", "open/data/[ab].parquet"),
        ("{root}/alias/data/*.parquet", "open/data/*.parquet"),
        ("{root}/second/*", "second/*"),
        ("none/*.parquet", "open/none/*.parquet"),
    ],
)
def test_what_stands_before_a_wildcard_is_confined(
    confinement: Confinement, root: Path, pattern: str, confined: str
) -> None:
    real = confinement.confined("input.path", pattern.replace("{root}", str(root)))

    assert real == str(root / confined)
    assert confinement.confined("input.path", real) == real


@pytest.mark.parametrize(
    "pattern",
    [
        "/*",
        "/etc/*",
        "/*/passwd",
        "../*",
        "../secret/*.parquet",
        "out/*.parquet",
        "out/none/*.parquet",
        "*/../../secret/s.parquet",
        "data/*/..",
        "data/[.][.]/../../secret/*",
        "{root}/*",
        "{root}/secret/*",
        "{root}/[s]ecret/*",
        "{root}*/s.parquet",
    ],
)
def test_a_glob_that_could_lead_outside_is_refused(confinement: Confinement, root: Path, pattern: str) -> None:
    with pytest.raises(
        PathForbidden, match=r"^input.path '.*' (is outside of|has a \.\. behind a wildcard; write it with)"
    ):
        confinement.confined("input.path", pattern.replace("{root}", str(root)))


def test_wildcards_in_the_name_of_a_folder_are_no_wildcards(root: Path) -> None:
    (root / "[s]ecret").mkdir()
    (root / "[s]ecret" / "a.parquet").touch()
    confinement = Confinement((root / "[s]ecret",))
    pattern = confinement.confined("input.path", "*.parquet")

    assert glob.glob(pattern) == [str(root / "[s]ecret" / "a.parquet")]
    assert confinement.confined("output.path", "out", globs=False) == str(root / "[s]ecret" / "out")
    real = confinement.confined("output.path", "out", globs=False)
    assert confinement.confined("output.path", real, globs=False) == real


def test_without_globs_a_star_is_a_star(confinement: Confinement, root: Path) -> None:
    assert confinement.confined("output.path", "new*/[x]", globs=False) == str(root / "open" / "new*" / "[x]")


def test_the_files_of_a_glob_or_a_folder_are_looked_at_again(confinement: Confinement, root: Path) -> None:
    found = sorted(glob.glob(confinement.confined("input.path", "data/?.parquet")))
    assert confinement.confined_files("input.path", found) == [
        str(root / "open" / "data" / name) for name in ("a.parquet", "b.parquet")
    ]

    for pattern in ("data/*.parquet", "*/s.parquet"):
        found = glob.glob(confinement.confined("input.path", pattern))
        with pytest.raises(PathForbidden) as caught:
            confinement.confined_files("input.path", found)
        assert str(caught.value) == (
            "input.path leads to a file outside of the folders that a request may name; leave out what links elsewhere"
        )


# --- settings ----------------------------------------------------------------------------------------------------


def test_the_setting_names_folders_and_the_tenant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")

    assert Confinement.read("/data/{tenant}/in: /shared::~/x:rel", "acme-1").folders == (
        Path("/data/acme-1/in"),
        Path("/shared"),
        Path("/home/me/x"),
        tmp_path / "rel",
    )


@pytest.mark.parametrize("tenant", ["", "..", "a/b", "A", "-a", "a_b", "a" * 64, "a\n", "a:b", "{tenant}"])
def test_a_tenant_whose_name_could_lead_elsewhere_has_no_folders(tenant: str) -> None:
    with pytest.raises(TenantUnreadable):
        Confinement.read("/data/{tenant}", tenant)


def test_without_folders_nothing_is_open() -> None:
    confinement = Confinement.read(" : ", "acme")
    line = "'x' cannot be used: no folder is open to requests; have the folders named by PENSTOCK_ALLOWED_PATHS"

    for ask in (confinement.confined, lambda field, path: confinement.confined_connection(field, f"sqlite:///{path}")):
        with pytest.raises(PathForbidden) as caught:
            ask("input.path", "x")
        assert str(caught.value) == f"input.path {line}"


def test_a_tenants_folder_may_be_a_link_and_may_not_exist(root: Path) -> None:
    confinement = Confinement((root / "alias", root / "none"))

    assert confinement.confined("input.path", "data") == str(root / "open" / "data")
    assert confinement.confined("input.path", str(root / "none" / "x")) == str(root / "none" / "x")


def test_everything_may_be_open() -> None:
    assert Confinement((Path("/"),)).confined("input.path", "/etc/hosts") == os.path.realpath("/etc/hosts")


def test_a_closed_folder_stays_closed_inside_of_an_open_one(root: Path) -> None:
    confinement = Confinement((root,), closed=(root / "secret",))
    assert confinement.confined("input.path", "open/data/a.parquet") == str(root / "open" / "data" / "a.parquet")

    for path in ("secret", "secret/s.parquet", "open/out", "secret/*.parquet", "open/out/*"):
        with pytest.raises(PathForbidden, match="is outside of the folders that a request may name"):
            confinement.confined("input.path", path)
    found = glob.glob(confinement.confined("input.path", "*/s.parquet"))
    assert found
    with pytest.raises(PathForbidden):
        confinement.confined_files("input.path", found)


# --- SQLite ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "file"),
    [
        ("sqlite:///file.db", "open/file.db"),
        ("sqlite:///data/../file.db", "open/file.db"),
        ("sqlite:///across/file.db", "second/file.db"),
        ("sqlite:///{root}/second/file.db", "second/file.db"),
        ("sqlite:///%2e%2e/file.db", "open/%2e%2e/file.db"),
        ("sqlite:///a*.db", "open/a*.db"),
    ],
)
def test_a_database_inside_comes_back_with_its_real_path(
    confinement: Confinement, root: Path, uri: str, file: str
) -> None:
    real = confinement.confined_connection("connection", uri.replace("{root}", str(root)))

    assert real == f"sqlite:///{root / file}"
    assert confinement.confined_connection("connection", real) == real


@pytest.mark.parametrize(
    ("uri", "line"),
    [
        ("sqlite:///../secret/s.db", f"connection '../secret/s.db' {OUTSIDE}"),
        ("sqlite:////etc/s.db", f"connection '/etc/s.db' {OUTSIDE}"),
        ("sqlite:///out/s.db", f"connection 'out/s.db' {OUTSIDE}"),
        ("sqlite:///.", f"connection '.' {OUTSIDE}"),
        ("sqlite:///~/s.db", "connection '~/s.db' begins with ~"),
        ("sqlite:///", "connection is empty; write a path"),
        ("sqlite:///a\0.db", "connection 'a\\x00.db' has a character"),
        (
            "sqlite:///file.db?mode=ro",
            "connection 'sqlite:///file.db?mode=ro' has more in it than a file's path; write sq",
        ),
        ("sqlite:///file:file.db", "connection 'sqlite:///file:file.db' has more"),
        ("sqlite:///FILE:file.db", "connection 'sqlite:///FILE:file.db' has more"),
        ("sqlite:///${HOME}/file.db", "connection 'sqlite:///${HOME}/file.db' has more"),
        ("sqlite:///file.db#x", "connection 'sqlite:///file.db#x' has more"),
        ("sqlite:///:memory:", "connection 'sqlite:///:memory:' has more"),
        ("sqlite://file.db", "connection 'sqlite:…' is no SQLite database; write sqlite:///file.db"),
        ("SQLITE:///file.db", "connection 'SQLITE:…' is no SQLite"),
        ("postgresql://u:secret@h/db", "connection 'postgresql:…' is no SQLite"),
        ("secret", "connection '…' is no SQLite"),
    ],
)
def test_a_database_outside_or_with_more_than_a_path_is_refused(confinement: Confinement, uri: str, line: str) -> None:
    with pytest.raises(PathForbidden) as caught:
        confinement.confined_connection("connection", uri)

    assert str(caught.value).startswith(line)
    assert uri.startswith("sqlite:///") or "u:secret" not in str(caught.value)
