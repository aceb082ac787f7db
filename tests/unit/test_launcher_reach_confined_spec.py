"""Paths of a spec: confined when it is submitted, and looked at again when its job starts."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from launcher.errors import PathForbidden
from launcher.reach.confine import Confinement
from launcher.reach.confined_spec import check_spec, confine_spec
from pipelines.spec import JobSpec, ParquetInput, ParquetOutput, Rejects, SqlInput, TableOutput
from predictors.base import ModelSpec


@dataclass(frozen=True)
class Place:
    """A tenant's folder beside another's, and a home in it that is closed."""

    root: Path

    @property
    def own(self) -> Path:
        return self.root / "acme"

    @property
    def other(self) -> Path:
        return self.root / "globex"

    @property
    def jobs(self) -> Path:
        return self.own / "home" / "jobs"

    @property
    def confinement(self) -> Confinement:
        return Confinement((self.own,), closed=(self.own / "home",))

    def spec(self) -> JobSpec:
        return JobSpec(
            ModelSpec("model.onnx", "onnx"),
            ParquetInput(("in", "more/*.parquet")),
            ParquetOutput("out/scores"),
            Rejects("out/rejects"),
        )

    def confined(self) -> JobSpec:
        return confine_spec(self.spec(), self.confinement)

    def check(self, spec: JobSpec) -> None:
        check_spec(spec, self.confinement, self.jobs / "batch-1")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    for folder in ("acme/in", "acme/more", "acme/out", "acme/home/jobs/batch-1", "acme/home/jobs/batch-2", "globex"):
        (tmp_path / folder).mkdir(parents=True)
    for file in ("acme/model.onnx", "acme/in/a.parquet", "acme/more/b.parquet", "globex/secret.parquet"):
        (tmp_path / file).touch()
    (place.jobs / "batch-2" / "theirs.parquet").touch()
    return place


# --- when it is submitted ------------------------------------------------------------------------------------------


def test_paths_become_real_ones(place: Place) -> None:
    (place.own / "link").symlink_to(place.own / "out")
    spec = confine_spec(replace(place.spec(), output=ParquetOutput("link/../out/./scores")), place.confinement)

    assert spec.model.uri == str(place.own / "model.onnx")
    assert spec.input == ParquetInput((str(place.own / "in"), f"{place.own}/more/*.parquet"))
    assert spec.output == ParquetOutput(str(place.own / "out" / "scores"))
    assert spec.rejects == Rejects(str(place.own / "out" / "rejects"))


def test_what_is_no_path_stays(place: Place) -> None:
    spec = JobSpec(
        ModelSpec("churn:Model", "python"), SqlInput("sales", "SELECT 1"), TableOutput("sales", "scores"), Rejects()
    )

    assert confine_spec(spec, place.confinement) == spec
    assert confine_spec(replace(spec, output=ParquetOutput("")), place.confinement).output == ParquetOutput("")


@pytest.mark.parametrize(
    ("field", "changed"),
    [
        ("model.uri", lambda spec: replace(spec, model=ModelSpec("../globex/model.onnx", "onnx"))),
        ("input.path", lambda spec: replace(spec, input=ParquetInput(("in", "../globex/secret.parquet")))),
        ("input.path", lambda spec: replace(spec, input=ParquetInput(("home/jobs/*/*.parquet",)))),
        ("output.path", lambda spec: replace(spec, output=ParquetOutput("../globex/out"))),
        # Its siblings would lie outside.
        ("output.path", lambda spec: replace(spec, output=ParquetOutput("."))),
        ("rejects.path", lambda spec: replace(spec, rejects=Rejects("/tmp/rejects"))),
    ],
)
def test_what_leads_elsewhere_is_refused_by_the_name_of_its_field(
    place: Place, field: str, changed: Callable[[JobSpec], JobSpec]
) -> None:
    with pytest.raises(PathForbidden) as told:
        confine_spec(changed(place.spec()), place.confinement)

    assert told.value.field == field


# --- when its job starts -------------------------------------------------------------------------------------------


def test_what_has_not_changed_passes(place: Place) -> None:
    place.check(place.confined())


def swap(path: Path, target: Path) -> None:
    """Put a link in the place of a file or an empty folder."""
    if path.is_dir():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)
    path.symlink_to(target)


@pytest.mark.parametrize(
    ("path", "target", "field"),
    [
        ("acme/model.onnx", "globex/secret.parquet", "model.uri"),
        ("acme/in/a.parquet", "globex/secret.parquet", "input.path"),
        ("acme/more/b.parquet", "globex/secret.parquet", "input.path"),
        ("acme/out/scores", "globex", "output.path"),
        ("acme/out", "globex", "output.path"),
        ("acme/out/rejects", "globex", "rejects.path"),
        # Within, but not where it was.
        ("acme/out/scores", "acme/in", "output.path"),
        # Into the folders of jobs, where only the service's own choices may lie.
        ("acme/out/scores", "acme/home/jobs/batch-2", "output.path"),
        ("acme/out/rejects", "acme/home/jobs/batch-1", "rejects.path"),
        ("acme/model.onnx", "acme/home/jobs/batch-2/theirs.parquet", "model.uri"),
        ("acme/in/a.parquet", "acme/home/jobs/batch-2/theirs.parquet", "input.path"),
    ],
)
def test_a_link_that_came_meanwhile_is_seen(place: Place, path: str, target: str, field: str) -> None:
    spec = place.confined()
    swap(place.root / path, place.root / target)

    with pytest.raises(PathForbidden) as told:
        place.check(spec)
    assert told.value.field == field
    assert "globex" not in str(told.value)


def test_a_folder_of_input_that_became_a_link_to_another_jobs_is_seen(place: Place) -> None:
    spec = replace(place.confined(), input=ParquetInput((str(place.own / "data"),)))
    (place.own / "data").symlink_to(place.jobs / "batch-2")

    with pytest.raises(PathForbidden):
        place.check(spec)


def test_what_the_service_has_chosen_lies_in_the_folders_of_jobs(place: Place) -> None:
    place.check(
        replace(
            place.confined(),
            input=ParquetInput((str(place.jobs / "batch-1" / "input"),)),
            # Rows that were rejected are scored again: what passes is added to the first one's result.
            output=ParquetOutput(str(place.jobs / "batch-2" / "results"), "append"),
            rejects=Rejects(str(place.jobs / "batch-1" / "rejects")),
        )
    )


def test_the_folders_of_jobs_are_left_by_dots_as_little_as_by_links(place: Place) -> None:
    spec = replace(place.confined(), output=ParquetOutput(f"{place.jobs}/../../../globex/out"))

    with pytest.raises(PathForbidden):
        place.check(spec)


def test_a_database_that_became_a_link_is_seen(place: Place) -> None:
    def spec(file: Path) -> JobSpec:
        uri = f"sqlite:///{file}"
        return replace(place.confined(), input=SqlInput(uri, "SELECT 1"), output=TableOutput(uri, "scores"))

    (place.own / "own.db").touch()
    place.check(spec(place.own / "own.db"))
    # The operator's default may lie anywhere.
    place.check(spec(place.other / "shared.db"))
    swap(place.own / "own.db", place.other / "shared.db")

    with pytest.raises(PathForbidden, match=r"^input\.connection leads elsewhere"):
        place.check(spec(place.own / "own.db"))


def test_databases_elsewhere_and_python_models_are_nothing_to_look_at(place: Place) -> None:
    uri = "postgresql://sales:hush@db/sales"
    place.check(
        JobSpec(ModelSpec("churn:Model", "python"), SqlInput(uri, "SELECT 1"), TableOutput(uri, "scores"), Rejects())
    )
