"""The package that users import: names come from where they are, and only when they are used."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import penstock

ROOT = Path(__file__).parents[2]


def test_every_name_is_there_and_the_types_are_said_of_the_same_ones() -> None:
    stub = ast.parse((ROOT / "penstock" / "__init__.pyi").read_text())
    typed = [alias.asname for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names]

    assert sorted(map(str, typed)) == penstock.__all__
    assert set(penstock.__all__) <= set(dir(penstock))
    for name in set(penstock.__all__) - {"plan"}:
        assert getattr(penstock, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        penstock.nothing  # type: ignore[attr-defined]  # noqa: B018


def test_importing_it_imports_nothing_else_of_ours() -> None:
    script = (
        "import sys, penstock; from penstock import RowsRejected; "
        "print([name for name in sys.modules if name in ('launcher', 'transforms', 'pyarrow', 'apache_beam')])"
    )

    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_a_module_in_front_of_ours_is_found_out_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "transforms.py").touch()
    path = f"{tmp_path}:{ROOT}"

    done = subprocess.run(
        [sys.executable, "-P", "-m", "penstock", "--help"], env={"PYTHONPATH": path}, capture_output=True, text=True
    )

    assert done.returncode == 2
    assert done.stderr == (
        f"error: {tmp_path}/transforms.py hides a package of Penstock's of the same name; rename it, or take its "
        "folder off sys.path (PYTHONPATH)\n"
    )


@pytest.mark.parametrize(
    ("module", "name", "is_found_out"),
    [
        ("transforms", "run", True),
        ("predictors", "RowsRejected", True),
        ("launcher", "Client", True),
        ("transforms", "Client", False),
        ("pipelines", "read_manifest", False),
    ],
)
def test_a_module_beside_a_script_is_found_out_where_ours_is_needed(
    tmp_path: Path, module: str, name: str, is_found_out: bool
) -> None:
    (tmp_path / f"{module}.py").write_text("print('ran')")

    done = subprocess.run(
        [sys.executable, "-c", f"from penstock import {name}"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )

    assert (done.returncode, done.stdout) == (int(is_found_out), "")
    assert (f"ImportError: {tmp_path}/{module}.py hides a package of Penstock's of the same name" in done.stderr) is (
        is_found_out
    )


def test_modules_where_it_is_started_come_behind_ours(tmp_path: Path) -> None:
    (tmp_path / "transforms.py").touch()
    (tmp_path / "launcher").mkdir()
    (tmp_path / "launcher" / "__init__.py").touch()

    done = subprocess.run(
        [sys.executable, "-m", "penstock", "--help"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    assert "Score data with models in bulk" in done.stdout


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path / "home"))
    pq.write_table(pa.table({"x": [1, 2, 3]}), "in.parquet")
    Path("spec_models.py").write_text(
        "class Times:\n    def __init__(self, factor): self.factor = factor\n"
        "    def predict(self, rows): return {'y': [self.factor * x for x in rows['x'].to_pylist()]}\n"
    )
    spec = {
        "model": {"uri": "spec_models:Times", "args": {"factor": 2}},
        "input": {"source": "parquet", "path": "in.parquet"},
        "output": {"destination": "parquet", "path": "out"},
    }
    Path("spec.json").write_text(json.dumps(spec))
    return Path("spec.json")


def test_a_job_is_run_from_python_with_changes(spec: Path) -> None:
    result = penstock.run(spec, model={"args": {"factor": 3}}, config={"parallelism": 1})

    assert (result.outcome, result.counts.scored, result.output) == ("clean", 3, "out")
    assert pq.read_table("out/", columns=["y"]).to_pydict() == {"y": [3, 6, 9]}
    with pytest.raises(penstock.RequestError, match=r"output\.path"):
        penstock.run(spec, output={"path": 3})
    assert len(list(Path("home/jobs").iterdir())) == 1


def test_a_module_that_ours_would_hide_makes_no_job(spec: Path) -> None:
    Path("transforms.py").touch()
    Path("spec_models.py").write_text("import transforms")

    with pytest.raises(penstock.RequestError, match=r"transforms\.py cannot be imported"):
        penstock.run(spec)
    assert not Path("home").exists()
