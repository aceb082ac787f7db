"""The wheel holds all that it needs, and works from any folder."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {"launcher", "pipelines", "predictors", "transforms"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that nothing is left in the checkout."""
    source = tmp_path_factory.mktemp("source")
    for name in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    for name in (*PACKAGES, "tests", "benchmarks"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    dist = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "setup.py", "--quiet", "bdist_wheel", "--dist-dir", str(dist)]
    subprocess.run(command, cwd=source, check=True, capture_output=True, timeout=120)
    (built,) = dist.glob("penstock-*.whl")
    return built


def test_the_wheel_holds_every_module_of_the_four_packages_and_nothing_else(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}

    expected = {str(file.relative_to(ROOT)) for package in PACKAGES for file in (ROOT / package).rglob("*.py")}
    # With it type checkers of those who use them read the types.
    assert names == expected | {f"{package}/py.typed" for package in PACKAGES}


def test_the_installed_wheel_runs_from_another_folder(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(site), "PENSTOCK_HOME": str(tmp_path / "home")}
    script = (
        "import launcher.cli, pipelines.batch; print(launcher.cli.__file__, pipelines.batch.__file__); "
        "launcher.cli.main(['--help'])"
    )

    done = subprocess.run(
        [sys.executable, "-P", "-c", script],
        cwd=elsewhere,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert done.returncode == 0, done.stderr
    assert str(site / "launcher" / "cli" / "__init__.py") in done.stdout
    assert str(site / "pipelines" / "batch.py") in done.stdout
    assert "resume" in done.stdout


def test_the_installed_wheel_makes_a_job_store(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    script = (
        "import sys; from pathlib import Path; import launcher; from launcher.state.sql import SqlJobStore; "
        "print(launcher.__file__, SqlJobStore.at(Path(sys.argv[1])).jobs())"
    )

    done = subprocess.run(
        [sys.executable, "-P", "-c", script, str(tmp_path / "penstock.db")],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{site / 'launcher' / '__init__.py'} []\n"
