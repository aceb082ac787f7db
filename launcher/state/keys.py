"""API keys: who may come in, for which tenant, and how far.

A token is `psk_<id>_<secret>`. It is shown once; of the secret only a hash is kept.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, get_args

import sqlalchemy as sa

from launcher.errors import ApiKeyUnknown, TenantUnreadable
from launcher.state import tables
from launcher.state.database import Database

# Each may all that those before it may.
Role = Literal["viewer", "submitter", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)

_keys = tables.keys
_TENANT = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_TOKEN = re.compile(r"psk_([0-9a-f]{8})_([A-Za-z0-9_-]{43})")
_ID_BYTES, _SECRET_BYTES = 4, 32
# What the secret of a key that does not exist is compared with.
_NO_HASH = "0" * 64


@dataclass(frozen=True)
class Key:
    """What is known of an API key; its secret is not.

    Args:
        id: the part of the token that may be shown.
        tenant: whose jobs it may see.
        role: what it may do.
        name: what people call it.
        created_at: when it was made.
        revoked_at: since when it opens nothing; None while it does.
    """

    id: str
    tenant: str
    role: Role
    name: str | None
    created_at: datetime
    revoked_at: datetime | None = None


def check_tenant(tenant: str) -> str:
    """`tenant`, if it can be the name of one.

    Raises:
        TenantUnreadable: it cannot.
    """
    if not _TENANT.fullmatch(tenant):
        raise TenantUnreadable(tenant)
    return tenant


class KeyStore:
    """The API keys in a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, tenant: str, role: Role, name: str | None = None) -> tuple[Key, str]:
        """Make a key. Returns it and its token, which nobody can learn again.

        Raises:
            TenantUnreadable: the tenant cannot be called so.
        """
        check_tenant(tenant)
        secret = secrets.token_urlsafe(_SECRET_BYTES)
        with self._database.transaction() as connection:
            while True:
                key = Key(secrets.token_hex(_ID_BYTES), tenant, role, name, self._database.now(connection))
                insert = self._database.upsert(_keys).values(**_row(key), hash=_hash(secret))
                if connection.execute(insert.on_conflict_do_nothing().returning(_keys.c.id)).first():
                    return key, f"psk_{key.id}_{secret}"

    def check(self, token: str) -> Key | None:
        """The key that a token is of; None when there is none, or it is revoked. Any text at all may be asked about.

        How long it takes does not tell whether an id exists, nor how much of a secret is right.
        """
        match = _TOKEN.fullmatch(token)
        if match is None:
            return None
        key_id, secret = match.groups()
        with self._database.reading() as connection:
            row = connection.execute(sa.select(_keys).where(_keys.c.id == key_id)).first()
        is_right = hmac.compare_digest(_hash(secret), _NO_HASH if row is None else row.hash)
        if row is None or not is_right or row.revoked_at is not None:
            return None
        return _key(row)

    def any(self) -> bool:
        """Whether some key opens something."""
        query = sa.select(_keys.c.id).where(_keys.c.revoked_at.is_(None)).limit(1)
        with self._database.reading() as connection:
            return connection.execute(query).first() is not None

    def list(self, tenant: str | None = None) -> Sequence[Key]:
        """All keys, the oldest first, also revoked ones.

        Args:
            tenant: only its keys.
        """
        query = sa.select(_keys).order_by(_keys.c.created_at, _keys.c.id)
        if tenant is not None:
            query = query.where(_keys.c.tenant == tenant)
        with self._database.reading() as connection:
            return [_key(row) for row in connection.execute(query)]

    def revoke(self, key_id: str) -> Key:
        """Let a key open nothing any more, from this moment on. Revoked again, it stays as it is.

        Raises:
            ApiKeyUnknown: there is none.
        """
        with self._database.transaction() as connection:
            now = self._database.now(connection)
            connection.execute(
                sa.update(_keys).where(_keys.c.id == key_id, _keys.c.revoked_at.is_(None)).values(revoked_at=now)
            )
            row = connection.execute(sa.select(_keys).where(_keys.c.id == key_id)).first()
        if row is None:
            raise ApiKeyUnknown(key_id)
        return _key(row)


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _row(key: Key) -> dict[str, Any]:
    return {
        "id": key.id,
        "tenant": key.tenant,
        "role": key.role,
        "name": key.name,
        "created_at": key.created_at,
        "revoked_at": key.revoked_at,
    }


def _key(row: "sa.Row[Any]") -> Key:
    return Key(row.id, row.tenant, row.role, row.name, row.created_at, row.revoked_at)
