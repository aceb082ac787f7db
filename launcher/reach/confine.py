"""Local paths of a request: they stay in the folders that a tenant may name, links and `..` followed.

What a path leads to may change between now and its use: use what `confined` returned, and have what is opened by it
held against `Confinement.bounds`.

Not promised: hard links are files like any others. Whoever can make links in an allowed folder by other ways than the
service is trusted with what they name.
"""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from launcher.errors import PathForbidden, TenantUnreadable
from predictors.bounds import Bounds, lies_in

VARIABLE = "PENSTOCK_ALLOWED_PATHS"
_TENANT = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_WILDCARD = re.compile(r"[*?[]")
_SQLITE = "sqlite:///"

# The same words for all that is outside, whether it exists or not.
_OUTSIDE = "is outside of the folders that a request may name; write a path below them, relative ones start there"


@dataclass(frozen=True)
class Confinement:
    """The folders that a tenant's requests may name; they need not exist yet.

    Args:
        folders: relative paths start at the first.
        closed: folders that stay closed even where they lie in the others, such as PENSTOCK_HOME.
    """

    folders: tuple[Path, ...]
    closed: tuple[Path, ...] = ()

    @classmethod
    def read(cls, text: str, tenant: str, closed: tuple[Path, ...] = ()) -> "Confinement":
        """What PENSTOCK_ALLOWED_PATHS says: folders parted by colons, `{tenant}` in them being the tenant's name.

        Raises:
            TenantUnreadable: the name could lead elsewhere; no key has such a one.
        """
        if not _TENANT.fullmatch(tenant):
            raise TenantUnreadable(tenant)
        named = [entry.strip().replace("{tenant}", tenant) for entry in text.split(os.pathsep)]
        return cls(tuple(Path(entry).expanduser().absolute() for entry in named if entry), closed)

    def confined(self, field: str, path: str, *, globs: bool = True, below: bool = False) -> str:
        """The real path of what a request names; it need not exist.

        A glob comes back as one: what stands before its first wildcard is real, what it matches is yet to be confined.

        Args:
            field: where it stands in the request.
            path: relative to the first folder, or absolute.
            globs: whether `*`, `?` and `[` are wildcards. Where something of that very name exists, they are not.
            below: whether it has to be in one of the folders rather than one of them, as what is replaced as a whole
                or has things laid beside it.

        Raises:
            PathForbidden: it leads elsewhere.
        """
        self._check_text(field, path)
        # A literal name first: what looks like a wildcard may be a link's name.
        real = self._real(field, path, path, below)
        if not globs or not _WILDCARD.search(path) or os.path.lexists(os.path.join(self._first, path)):
            return real
        fixed, rest = _cut(path)
        if ".." in rest.split(os.sep):
            raise PathForbidden(field, path, "has a .. behind a wildcard; write it without")
        folder = self._real(field, path, fixed or ".", below=False)
        return os.path.join(_escaped(folder), rest)

    def confined_files(self, field: str, files: Iterable[str]) -> list[str]:
        """The real paths of the files that a glob or a folder gave, in their order.

        Raises:
            PathForbidden: one of them leads elsewhere.
        """
        real = []
        for file in files:
            try:
                real.append(self.confined(field, file, globs=False))
            except PathForbidden as error:
                # What lies behind a link is not told, not even its name.
                reason = (
                    "leads to a file outside of the folders that a request may name; leave out what links elsewhere"
                )
                raise PathForbidden(field, "", reason) from error
        return real

    def confined_connection(self, field: str, uri: str) -> str:
        """The URI of a SQLite database, `sqlite:///file.db`, with its real path.

        Raises:
            PathForbidden: the path leads elsewhere, or the URI is another or has more in it than a path.
        """
        path = uri.removeprefix(_SQLITE)
        if not uri.startswith(_SQLITE):
            raise PathForbidden(field, _scheme(uri), "is no SQLite database; write sqlite:///file.db")
        if re.search(r"[?#]|\$\{", path) or path.lower().startswith("file:") or path == ":memory:":
            raise PathForbidden(field, uri, "has more in it than a file's path; write sqlite:///file.db")
        return _SQLITE + self.confined(field, path, globs=False, below=True)

    @property
    def bounds(self) -> Bounds:
        """The same, to hold against it what is opened."""
        return Bounds(tuple(os.path.abspath(each) for each in self.folders), tuple(map(os.path.abspath, self.closed)))

    def bounds_of(self, path: str, jobs: Path) -> Bounds:
        """What a folder that a job has written is held against when it is read.

        Args:
            jobs: holds the jobs' own folders, which no request names, and where the service itself has written.
        """
        own = os.path.abspath(jobs)
        return Bounds((own,)) if lies_in(os.path.abspath(path), own, below=True) else self.bounds

    @property
    def _first(self) -> str:
        """Where relative paths start."""
        return os.path.abspath(self.folders[0])

    def _check_text(self, field: str, path: str) -> None:
        if not self.folders:
            remedy = f"have the folders named by {VARIABLE}"
            raise PathForbidden(field, path, f"cannot be used: no folder is open to requests; {remedy}")
        if not path:
            raise PathForbidden(field, path, "is empty; write a path")
        if re.search(r"[\x00\ud800-\udfff]", path):
            raise PathForbidden(field, path, "has a character that no path has; leave it out")
        if path.startswith("~"):
            raise PathForbidden(
                field, path, "begins with ~, and the service's home folder is not for jobs; leave it out"
            )

    def _real(self, field: str, path: str, part: str, below: bool) -> str:
        """`part` of `path`, links and `..` followed, of which the end may not exist."""
        real = os.path.realpath(os.path.join(self._first, part))
        inside = any(lies_in(real, os.path.realpath(folder), below=below) for folder in self.folders)
        if not inside or any(lies_in(real, os.path.realpath(folder)) for folder in self.closed):
            raise PathForbidden(field, path, _OUTSIDE)
        return real


def _cut(pattern: str) -> tuple[str, str]:
    """The folder before the first wildcard, and the rest."""
    parts = pattern.split(os.sep)
    n = next(n for n, part in enumerate(parts) if _WILDCARD.search(part))
    return os.sep.join(parts[:n]) or (os.sep if pattern.startswith(os.sep) else ""), os.sep.join(parts[n:])


def _escaped(folder: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", folder)


def _scheme(uri: str) -> str:
    """As much of a URI as may be repeated."""
    scheme, found, _ = uri.partition(":")
    return f"{scheme}:…" if found and re.fullmatch(r"[A-Za-z][\w+.-]{0,30}", scheme) else "…"
