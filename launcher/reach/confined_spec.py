"""Every file that a spec of the service names has to lie in the tenant's folders."""

import os
from pathlib import Path

from launcher.errors import PathForbidden
from launcher.reach.confine import Confinement
from pipelines.spec import JobSpec
from predictors.specvalue import NamedPath


def confine_spec(spec: JobSpec, confinement: Confinement) -> JobSpec:
    """`spec` with every path resolved, links followed.

    Connections are names, and looked at where they are registered. What lies in a job's own folder has been put there
    by the service, after this.

    Raises:
        PathForbidden: names the field.
    """

    def resolved(named: NamedPath) -> str:
        is_written = named.role == "written"
        return confinement.confined(named.field, named.path, globs=named.is_pattern, below=is_written)

    return spec.with_paths(resolved)


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

    patterns: dict[str, list[str]] = {}
    for named in spec.paths():
        if named.is_pattern:
            patterns.setdefault(named.field, []).append(named.path)
        else:
            check(named.field, named.path)
    for field, paths in patterns.items():
        if not all(_holds(jobs, path) for path in paths):
            from transforms.sources.files import find_files

            confinement.confined_files(field, find_files(tuple(paths), confinement.bounds))
    for connection in spec.connections():
        if connection.name.startswith("sqlite:"):
            file = connection.name.removeprefix("sqlite:///")
            if os.path.realpath(file) != file:
                raise PathForbidden(connection.field, "", "leads elsewhere since the job was started; submit it anew")


def _holds(folder: str, path: str) -> bool:
    """Whether `path`, as it is written, lies in `folder`."""
    return os.path.abspath(path).startswith(os.path.abspath(folder).rstrip(os.sep) + os.sep)
