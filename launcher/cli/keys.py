"""What `penstock keys` does, on the job store itself: whoever may open that needs no key. Returns the exit code."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from launcher.cli.exits import DONE
from launcher.home import Home
from launcher.reach.tenant import shared_folders
from launcher.report import aligned, dumped, timestamp
from launcher.settings import Settings
from launcher.state.database import Database
from launcher.state.job import DEFAULT_TENANT
from launcher.state.keys import Key, KeyStore, Role


def create_key(tenant: str, role: Role, name: str | None, as_json: bool) -> int:
    """Make a key, and print its token, which nobody can learn again."""
    with _keys() as keys:
        known = {each.tenant for each in keys.list() if each.revoked_at is None}
        key, token = keys.create(tenant, role, name)
        shared = None if tenant in known else shared_folders(Settings.from_environment(), keys.list())
    if role == "admin" and tenant != DEFAULT_TENANT:
        print(
            f"warning: an admin key opens the whole service, not only tenant {tenant}: Python models that it registers "
            "run as the service's user; give it to those alone who may see everything",
            file=sys.stderr,
        )
    if shared is not None:
        print(f"warning: {shared}", file=sys.stderr)
    if as_json:
        print(dumped({**_object(key), "token": token}))
    else:
        print(token)
        print(f"key {key.id} is of tenant {key.tenant}, a {key.role}; it is not shown again", file=sys.stderr)
    return DONE


def list_keys(tenant: str | None, as_json: bool) -> int:
    """List keys, the oldest first; of their tokens the part that is no secret."""
    with _keys() as keys:
        found = keys.list(tenant)
    if as_json:
        print(dumped({"keys": [_object(key) for key in found]}))
    elif not found:
        print("no keys; `penstock keys create --tenant default --role admin` makes one")
    else:
        rows = ([*_object(key).values()] for key in found)
        print("\n".join(aligned(rows, ["key", "tenant", "role", "name", "created", "revoked"])))
    return DONE


def revoke_key(key_id: str) -> int:
    """Let a key open nothing any more."""
    with _keys() as keys:
        key = keys.revoke(key_id)
    print(f"key {key.id} of tenant {key.tenant} is revoked", file=sys.stderr)
    return DONE


@contextmanager
def _keys() -> Iterator[KeyStore]:
    home = Home.from_environment()
    home.create()
    database = Database.named(Settings.from_environment().store_url, home.store)
    try:
        yield KeyStore(database)
    finally:
        database.close()


def _object(key: Key) -> dict[str, Any]:
    return {
        "key_id": key.id,
        "tenant": key.tenant,
        "role": key.role,
        "name": key.name,
        "created_at": timestamp(key.created_at),
        "revoked_at": timestamp(key.revoked_at),
    }
