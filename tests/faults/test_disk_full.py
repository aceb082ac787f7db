"""A full disk: one clear line, the old result untouched, nothing half-visible; with room again, a resume ends it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import lacking
from tests.scenes import numbered_rows, write_files

PENSTOCK = Path(sys.executable).with_name("penstock")
ROWS = 400_000
# In a mount namespace of its own, with a small disk: the script sees it, nobody else.
SCRIPT = """
mount -t tmpfs -o size=8m tmpfs disk
mkdir -p disk/scores && cp old.parquet disk/scores/
head -c {filler} /dev/zero >disk/filler
{penstock} run job.yaml --json >run.json 2>run.err && echo 0 >run.code || echo $? >run.code
ls -A disk >after.txt
cp -r disk/scores seen
rm disk/filler
{penstock} jobs list --json >list.json 2>list.err
job=$({python} -c 'import json; print(json.load(open("list.json"))["jobs"][0]["job_id"])')
{penstock} resume $job --json >resume.json 2>resume.err && echo 0 >resume.code || echo $? >resume.code
ls -A disk >end.txt
cp -r disk/scores published
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A job whose result of about 5 MB goes to a disk of 8 MB that is nearly full."""
    probe = ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", str(tmp_path)]
    if subprocess.run(probe, capture_output=True, check=False).returncode != 0:
        lacking("mount namespaces are not allowed here")
    write_files(tmp_path / "in", numbered_rows(ROWS), files=4, row_group_rows=100_000)
    pq.write_table(pa.table({"id": [-1], "score": [-1.0]}), tmp_path / "old.parquet")
    (tmp_path / "disk").mkdir()
    (tmp_path / "job.yaml").write_text(
        "model: {uri: 'tests.scenes:Doubler'}\n"
        "input: {source: parquet, path: in}\n"
        "output: {destination: parquet, path: disk/scores, mode: overwrite, columns: [id]}\n"
    )
    return tmp_path


@pytest.mark.parametrize("home", ["home", "disk/home"], ids=["job store elsewhere", "job store on the full disk, too"])
def test_a_full_disk_fails_the_job_with_a_clear_line_and_room_lets_it_end(folder: Path, home: str) -> None:
    script = SCRIPT.format(penstock=PENSTOCK, python=sys.executable, filler=5_500_000)
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PENSTOCK_HOME": str(folder / home), "PYTHONPATH": root}

    done = subprocess.run(
        ["unshare", "--mount", "bash", "-euc", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr

    run = json.loads((folder / "run.json").read_text())
    assert (folder / "run.code").read_text().strip() == "1"
    assert run["status"] == "failed"
    assert "the disk is full; free some space" in run["error"]
    assert "\n" not in run["error"]
    assert pq.read_table(folder / "seen").to_pylist() == [{"id": -1, "score": -1.0}]
    assert json.loads((folder / "list.json").read_text())["jobs"][0]["status"] == "failed"

    assert (folder / "resume.code").read_text().strip() == "0", (folder / "resume.err").read_text()
    assert json.loads((folder / "resume.json").read_text())["counts"]["scored_rows"] == ROWS
    assert pq.read_table(folder / "published")["id"].to_pylist() == list(range(ROWS))
    left = {name for name in (folder / "end.txt").read_text().split() if name != "home"}
    # The result, and its manifest beside it.
    assert left == {"scores", ".scores.penstock.json"}


def test_a_read_only_disk_is_refused_before_any_row_is_read(folder: Path) -> None:
    script = (
        "mount -t tmpfs tmpfs disk && mount -o remount,ro disk\n"
        f"{PENSTOCK} run job.yaml --json >run.json 2>run.err && echo 0 >run.code || echo $? >run.code\n"
    )
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PENSTOCK_HOME": str(folder / "home"), "PYTHONPATH": root}

    subprocess.run(["unshare", "--mount", "bash", "-euc", script], cwd=folder, env=environment, check=True, timeout=120)

    said = (folder / "run.err").read_text()
    assert (folder / "run.code").read_text().strip() == "2", "no job is made of what cannot pass"
    assert "output.path disk/scores: not writable (Read-only file system)" in said
    assert "resume" not in said
    assert (folder / "run.json").read_text() == ""
