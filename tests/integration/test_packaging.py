"""The wheel holds all that it needs, and works from any folder."""

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from onnx import TensorProto, helper
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PACKAGES = {"launcher", "penstock", "pipelines", "predictors", "transforms"}


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


def test_the_wheel_holds_every_module_of_the_packages_and_nothing_else(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}

    expected = {str(file.relative_to(ROOT)) for package in PACKAGES for file in (ROOT / package).rglob("*.py")}
    # With it type checkers of those who use them read the types.
    assert names == expected | {f"{package}/py.typed" for package in PACKAGES} | {"penstock/__init__.pyi"}


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


def declared(wheel: Path) -> set[str]:
    """The distributions that come with the wheel: what it declares, and what these declare."""
    (metadata,) = [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".dist-info/METADATA")]
    lines = zipfile.ZipFile(wheel).read(metadata).decode().splitlines()
    left = [Requirement(line.partition(": ")[2]) for line in lines if line.startswith("Requires-Dist: ")]
    seen: set[tuple[str, str]] = set()
    while left:
        wanted = left.pop()
        for extra in ("", *wanted.extras):
            key = (canonical(wanted.name), extra)
            if key in seen:
                continue
            seen.add(key)
            try:
                needs = importlib.metadata.requires(wanted.name) or []
            except importlib.metadata.PackageNotFoundError:
                continue
            for each in map(Requirement, needs):
                if each.marker is None or each.marker.evaluate({"extra": extra}):
                    left.append(each)
    return {name for name, _ in seen}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture(scope="module")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as it is where nothing else was installed: no other package of this environment can be imported."""
    site = tmp_path_factory.mktemp("bare")
    zipfile.ZipFile(wheel).extractall(site)
    allowed = declared(wheel)
    owners = importlib.metadata.packages_distributions()
    hidden = {name for name, dists in owners.items() if not {canonical(each) for each in dists} & allowed}
    assert {"pandas", "onnx", "sklearn", "lightgbm", "polars", "pytest"} <= hidden
    assert not hidden & {"pyarrow", "onnxruntime", "numpy", "apache_beam", "pydantic"}
    (site / "sitecustomize.py").write_text(
        "import sys\n"
        "class Hidden:\n"
        f"    names = {sorted(hidden - PACKAGES)!r}\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in self.names:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Hidden())\n"
    )
    return site


@pytest.mark.parametrize("flavor", ["onnx", "python"])
def test_the_wheel_with_nothing_else_scores_a_model_of_each_flavor(bare: Path, tmp_path: Path, flavor: str) -> None:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["score"])],
        "graph",
        [value("x", TensorProto.FLOAT, ["n", 2])],
        [value("score", TensorProto.FLOAT, ["n", 2])],
    )
    onnx.save_model(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), tmp_path / "model.onnx"
    )
    (tmp_path / "own.py").write_text(
        "import pyarrow as pa\nclass Model:\n    def predict(self, rows):\n"
        "        return pa.record_batch({'score': pa.array([[-1.0, -2.0]] * rows.num_rows)})\n"
    )
    pq.write_table(
        pa.table({"a": [1.0, None], "b": [2.0, 3.0], "at": pa.array([5, 7], pa.timestamp("ns"))}),
        tmp_path / "in.parquet",
    )
    model = {"uri": "model.onnx" if flavor == "onnx" else "own:Model", "features": ["a", "b"]}
    spec = {
        "model": model,
        "input": {"source": "parquet", "path": "in.parquet"},
        "output": {"destination": "parquet", "path": "out", "columns": ["at"]},
        "rejects": {"path": "rejects", "max_reject_ratio": 1.0},
    }
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    program = "import sys; from launcher.cli import main; sys.exit(main(sys.argv[1:]))"

    done = subprocess.run(
        [sys.executable, "-P", "-c", program, "run", "spec.json"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(bare), "PENSTOCK_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        timeout=240,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert pq.read_table(tmp_path / "out", columns=["score"]).to_pydict() == {"score": [[-1.0, -2.0]]}
