"""What API keys must do, wherever they are kept."""

import hashlib
import re
from collections.abc import Callable
from datetime import timedelta

import pytest
import sqlalchemy as sa

from launcher.errors import ApiKeyUnknown, TenantUnreadable
from launcher.state import tables
from launcher.state.database import Database
from launcher.state.keys import KeyStore
from tests.contract.job_store import T0, Clock

GARBAGE = [
    "",
    " ",
    "psk_",
    "psk__",
    "secret",
    "psk_00000000",
    "psk_00000000_",
    "psk_00000000_" + "A" * 42,
    "psk_00000000_" + "A" * 44,
    "psk_00000000_" + "A" * 43 + "\n",
    "psk_0000000Z_" + "A" * 43,
    "psk_00000000_" + "é" * 43,
    "psk_00000000_" + "\x00" * 43,
    "psk_00000000_" + "\ud800" * 43,
    "psk_٠٠٠٠٠٠٠٠_" + "A" * 43,
    "psk_00000000_" + "'" * 43,
    "psk_" * 100_000,
]


class KeysContract:
    """Mix with one of `tests.contract.databases`."""

    @pytest.fixture
    def keys(self, open_database: Callable[[], Database]) -> KeyStore:
        return KeyStore(open_database())

    def test_a_token_opens_what_its_key_may(self, keys: KeyStore, open_database: Callable[[], Database]) -> None:
        key, token = keys.create("acme", "submitter", "nightly, Zürich")

        assert re.fullmatch(f"psk_{key.id}_[A-Za-z0-9_-]{{43}}", token)
        assert re.fullmatch("[0-9a-f]{8}", key.id)
        assert (key.tenant, key.role, key.name, key.revoked_at) == ("acme", "submitter", "nightly, Zürich", None)
        assert key.created_at == T0
        assert keys.check(token) == key
        assert KeyStore(open_database()).check(token) == key

    def test_the_secret_is_nowhere_in_the_store(self, keys: KeyStore, open_database: Callable[[], Database]) -> None:
        key, token = keys.create("acme", "admin", None)
        secret = token.removeprefix(f"psk_{key.id}_")
        with open_database().reading() as connection:
            (row,) = connection.execute(sa.select(tables.keys)).all()

        assert row.hash == hashlib.sha256(secret.encode()).hexdigest()
        assert secret not in repr(tuple(row)) + repr(key)

    def test_no_other_secret_opens_it(self, keys: KeyStore) -> None:
        key, token = keys.create("acme", "admin", None)
        other, others_token = keys.create("acme", "admin", None)
        last = "A" if token[-1] != "A" else "B"

        assert keys.check(token[:-1] + last) is None
        assert keys.check(f"psk_{key.id}_{others_token.removeprefix(f'psk_{other.id}_')}") is None
        # The hash, should it ever be read, opens nothing.
        assert keys.check(f"psk_{key.id}_{hashlib.sha256(token.encode()).hexdigest()[:43]}") is None
        assert keys.check("psk_ffffffff_" + "A" * 43) is None

    def test_garbage_opens_nothing_and_breaks_nothing(self, keys: KeyStore) -> None:
        keys.create("acme", "admin", None)

        assert [keys.check(token) for token in GARBAGE] == [None] * len(GARBAGE)

    def test_a_revoked_key_opens_nothing_from_that_moment_on(self, keys: KeyStore, clock: Clock) -> None:
        key, token = keys.create("acme", "admin", None)
        clock.advance(1)
        revoked = keys.revoke(key.id)
        clock.advance(1)

        assert revoked.revoked_at == T0 + timedelta(seconds=1)
        assert keys.check(token) is None
        assert keys.revoke(key.id) == revoked
        assert keys.list() == [revoked]
        with pytest.raises(ApiKeyUnknown, match="there is no API key '00000000'; `penstock keys list` shows all"):
            keys.revoke("00000000")

    def test_there_is_a_key_while_one_is_not_revoked(self, keys: KeyStore) -> None:
        seen = [keys.any()]
        made = [keys.create("acme", "viewer", None)[0] for _ in range(2)]
        seen.append(keys.any())
        for key in made:
            keys.revoke(key.id)
            seen.append(keys.any())

        assert seen == [False, True, True, False]

    def test_keys_are_listed_oldest_first_and_by_tenant(self, keys: KeyStore, clock: Clock) -> None:
        made = []
        for tenant in ("b", "a", "b"):
            made.append(keys.create(tenant, "viewer", None)[0])
            clock.advance(1)

        assert keys.list() == made
        assert keys.list("b") == [made[0], made[2]]
        assert keys.list("c") == []

    def test_a_key_is_for_a_tenant_that_can_be(self, keys: KeyStore) -> None:
        with pytest.raises(TenantUnreadable):
            keys.create("No Tenant", "admin", None)
        assert keys.list() == []
