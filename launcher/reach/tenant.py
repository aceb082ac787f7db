"""What a tenant's jobs may reach: folders, hosts, and the databases that connections name."""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from launcher.errors import ConnectionUnknown, LauncherError
from launcher.reach.confine import Confinement
from launcher.reach.egress import Egress
from launcher.settings import Settings
from launcher.state.job import Job
from launcher.state.keys import Key
from launcher.state.registry import Connections

# What a job gets that names no connection: PENSTOCK_DEFAULT_CONNECTION, or a connection of this name of the tenant's.
DEFAULT_CONNECTION = "default"
_SQLITE = "sqlite:///"
# As many names as a line bears.
_SHOWN_TENANTS = 5


@dataclass(frozen=True)
class Reach:
    """Folders, hosts and databases, by tenant.

    Args:
        home: PENSTOCK_HOME: no request reads or writes there.
        working_dir: the one folder that requests may name where PENSTOCK_ALLOWED_PATHS is not set.
        keyless: whether nobody but who started the service uses it, on this machine: they may reach what they can
            reach anyway. Asked each time, for a key may be made while the service runs.
    """

    settings: Settings
    connections: Connections
    home: Path
    working_dir: Path
    keyless: Callable[[], bool]

    def confinement(self, tenant: str) -> Confinement:
        """The folders that a tenant's requests may name."""
        named = self.settings.allowed_paths
        if named is None:
            # As it is: a colon in its name parts nothing.
            return Confinement((self.working_dir.absolute(),), closed=(self.home,))
        return Confinement.read(named, tenant, closed=(self.home,))

    def folders(self, tenant: str) -> tuple[str, ...]:
        """The same, for a job's process."""
        return tuple(str(folder) for folder in self.confinement(tenant).folders)

    @cached_property
    def egress(self) -> Egress:
        """The hosts that may be reached on a tenant's behalf, be it a database or a webhook's receiver."""
        return Egress.read(self.settings.allowed_hosts)

    def check_connection(self, tenant: str, uri: str) -> str:
        """The URI of a connection as it is to be kept.

        Raises:
            LauncherError: it leads where the tenant may not go; the line never repeats it.
        """
        if uri.startswith("sqlite:"):
            return self.confinement(tenant).confined_connection("uri", uri)
        if self.keyless():
            return uri
        self.egress.check_connection(uri, whose=tenant)
        return uri

    def uri(self, tenant: str, name: str) -> str:
        """Where a connection leads. A secret.

        Raises:
            ConnectionUnknown: the tenant has none of this name.
            LauncherError: it leads where the tenant may not go (any more).
        """
        try:
            registered = self.connections.get(tenant, name).uri
        except ConnectionUnknown:
            default = self.settings.default_connection
            if name != DEFAULT_CONNECTION or default in (None, name):
                raise
            if "://" not in default and "${" not in default:
                return self.uri(tenant, default)
            # The operator's own: it may lead anywhere, and have variables of the service's environment in it.
            return self._placed(_expanded(default))
        is_file = registered.startswith("sqlite:")
        checked = self.confinement(tenant).confined_connection("uri", registered) if is_file else registered
        if self.keyless():
            return _expanded(checked)
        # By the addresses that were judged, or a name could lead elsewhere a moment later.
        return checked if is_file else self.egress.pin_connection(checked, whose=tenant)

    def _placed(self, uri: str) -> str:
        """A SQLite database by its real path: a job runs in another folder than the service."""
        path = uri.removeprefix(_SQLITE)
        return uri if path in (uri, "") else _SQLITE + os.path.realpath(self.working_dir / path)

    def uris(self, job: Job) -> Mapping[str, str]:
        """Where each connection that a job's spec names leads."""
        return {name: self.uri(job.tenant, name) for name in job.spec.connection_names()}

    def destination(self, job: Job) -> Mapping[str, str]:
        """Where the connection leads that a job's output names; empty where it names none.

        Raises:
            ConnectionUnknown: it is not known any more.
            LauncherError: it leads where the tenant may not go (any more).
        """
        return {each.name: self.uri(job.tenant, each.name) for each in job.spec.output.connections()}


def operators_uri(connections: Connections, default: str | None, tenant: str, name: str) -> str:
    """Where a tenant's connection leads, for the operator on the service's own machine, who may go anywhere.

    Args:
        default: PENSTOCK_DEFAULT_CONNECTION.

    Raises:
        ConnectionUnknown: the tenant has none of this name.
    """
    try:
        return connections.get(tenant, name).uri
    except ConnectionUnknown:
        if name != DEFAULT_CONNECTION or default in (None, name):
            raise
        is_uri = "://" in default or "${" in default
        return default if is_uri else connections.get(tenant, default).uri


def shared_folders(settings: Settings, keys: Iterable[Key]) -> str | None:
    """What to say where tenants may name each other's files; None where each has folders of its own, or is alone."""
    tenants = sorted({key.tenant for key in keys if key.revoked_at is None})
    if len(tenants) < 2 or "{tenant}" in (settings.allowed_paths or ""):
        return None
    shown = ", ".join(tenants[:_SHOWN_TENANTS]) + (", …" if len(tenants) > _SHOWN_TENANTS else "")
    where = "PENSTOCK_ALLOWED_PATHS has no {tenant}" if settings.allowed_paths else "PENSTOCK_ALLOWED_PATHS is not set"
    return (
        f"{len(tenants)} tenants ({shown}) share folders, and each may read and replace what is another's: {where}; "
        "set it as in PENSTOCK_ALLOWED_PATHS=/data/{tenant} for the service"
    )


def _expanded(template: str) -> str:
    from transforms.connection import Connection
    from transforms.errors import ConnectionRefused

    try:
        return Connection(template).expanded()
    except ConnectionRefused as error:
        raise LauncherError(str(error)) from error


__all__ = ["DEFAULT_CONNECTION", "Reach", "operators_uri", "shared_folders"]
