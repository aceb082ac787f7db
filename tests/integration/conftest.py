"""Services that tests of the API share; each test has tenants of its own."""

import uuid
from collections.abc import Iterator

import pytest

from tests.api import ASIDE, Api, serving


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """A service that asks for keys."""
    with serving(tmp_path_factory.mktemp("api"), keyless=False, preload=ASIDE) as served:
        yield served


@pytest.fixture(scope="session")
def keyless_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """A service without keys. No test may make one."""
    with serving(tmp_path_factory.mktemp("keyless"), keyless=True, preload=ASIDE) as served:
        yield served


@pytest.fixture
def tenant() -> str:
    """A tenant that no other test knows."""
    return f"tenant-{uuid.uuid4().hex[:12]}"
