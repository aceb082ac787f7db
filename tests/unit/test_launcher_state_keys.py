"""API keys in SQLite, and the same in PostgreSQL."""

import pytest

from launcher.errors import TenantUnreadable
from launcher.state.keys import check_tenant
from tests.contract.databases import InPostgres, InSqlite
from tests.contract.keys import KeysContract


class TestSqlite(InSqlite, KeysContract):
    pass


class TestPostgres(InPostgres, KeysContract):
    pass


@pytest.mark.parametrize("tenant", ["a", "0", "acme-2", "a" * 63])
def test_a_tenant_may_be_called_so(tenant: str) -> None:
    assert check_tenant(tenant) == tenant


@pytest.mark.parametrize("tenant", ["", "-a", "A", "a_b", "a b", "ä", "a\n", "a" * 64, "../a", "a" * 1000], ids=ascii)
def test_no_tenant_may_be_called_so(tenant: str) -> None:
    with pytest.raises(TenantUnreadable, match="write up to 63 of a-z, 0-9 and -") as caught:
        check_tenant(tenant)
    assert len(str(caught.value)) < 200
    assert "\n" not in str(caught.value)
