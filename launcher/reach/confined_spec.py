"""Every file that a spec of the service names has to lie in the tenant's folders."""

import os
from dataclasses import replace
from pathlib import Path

from launcher.errors import PathForbidden
from launcher.reach.confine import Confinement
from pipelines.spec import JobSpec, ParquetInput, ParquetOutput, SqlInput, TableOutput


def confine_spec(spec: JobSpec, confinement: Confinement) -> JobSpec:
    """`spec` with every path resolved, links followed.

    Connections are names, and looked at where they are registered. What lies in a job's own folder has been put there
    by the service, after this.

    Raises:
        PathForbidden: names the field.
    """
    confined = confinement.confined
    model, given, wanted, rejects = spec.model, spec.input, spec.output, spec.rejects
    if model.flavor != "python":
        model = replace(model, uri=confined("model.uri", model.uri, globs=False))
    if isinstance(given, ParquetInput):
        given = replace(given, path=tuple(confined("input.path", path) for path in given.path))
    if isinstance(wanted, ParquetOutput) and wanted.path:
        wanted = replace(wanted, path=confined("output.path", wanted.path, globs=False, below=True))
    if rejects.path is not None:
        rejects = replace(rejects, path=confined("rejects.path", rejects.path, globs=False, below=True))
    return replace(spec, model=model, input=given, output=wanted, rejects=rejects)


def check_spec(spec: JobSpec, confinement: Confinement, job_folder: Path) -> None:
    """Look again, just before a job reads or writes, at what `confine_spec` has passed: a link may have come meanwhile.

    Args:
        spec: with the URIs of its connections, those of SQLite with real paths, judged when they were handed over.
        job_folder: the job's own folder; what is written as a path below it, or below one beside it, is the service's
            own choice. A link that leads there is not.

    Raises:
        PathForbidden: names the field.
    """
    jobs = str(job_folder.parent)

    def check(field: str, path: str) -> None:
        if not _holds(jobs, path) and confinement.confined(field, path, globs=False) != path:
            raise PathForbidden(field, path, "leads elsewhere since the job was submitted; submit it anew")

    if spec.model.flavor != "python":
        check("model.uri", spec.model.uri)
    if isinstance(spec.input, ParquetInput):
        own = [path for path in spec.input.path if _holds(jobs, path)]
        if len(own) < len(spec.input.path):
            from transforms.sources.files import find_files

            confinement.confined_files("input.path", find_files(spec.input.path, confinement.bounds))
    if isinstance(spec.output, ParquetOutput):
        check("output.path", spec.output.path)
    if spec.rejects.path is not None:
        check("rejects.path", spec.rejects.path)
    for field, part in (("input.connection", spec.input), ("output.connection", spec.output)):
        if isinstance(part, SqlInput | TableOutput) and part.connection.startswith("sqlite:"):
            file = part.connection.removeprefix("sqlite:///")
            if os.path.realpath(file) != file:
                raise PathForbidden(field, "", "leads elsewhere since the job was started; submit it anew")


def _holds(folder: str, path: str) -> bool:
    """Whether `path`, as it is written, lies in `folder`."""
    return os.path.abspath(path).startswith(os.path.abspath(folder).rstrip(os.sep) + os.sep)
