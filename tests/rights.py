"""What a test may do on the machine, for those that run as root, who may do everything."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NOBODY = 65534


@contextmanager
def as_nobody() -> Iterator[None]:
    """Without the rights of root, who may write everything. The real user, too, whom `os.access` asks about."""
    is_root = os.geteuid() == 0
    if is_root:
        os.setresuid(_NOBODY, _NOBODY, 0)
    try:
        yield
    finally:
        if is_root:
            os.setresuid(0, 0, 0)


def let_in(folder: Path) -> None:
    """Have everybody reach a folder of a test: those above it, up to the one for all tests, are root's alone."""
    for above in (folder, *folder.parents[:3]):
        above.chmod(above.stat().st_mode | 0o055)
