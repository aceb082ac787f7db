"""The command line: `python -m penstock`, and the script `penstock`.

Before anything of ours is imported it is made sure that it will be ours: a module of the same name may lie in front.
"""

import os
import sys

from penstock.hiding import OURS, hiding


def main() -> int:
    """Run one command. Returns its exit code."""
    # `python -m` puts the working folder first. Modules there are a user's; what loads a model adds it behind ours.
    if not sys.flags.safe_path and sys.path and sys.path[0] in ("", os.getcwd()) and _is_started_by_module():
        sys.path.pop(0)
    found = hiding(OURS)
    if found is not None:
        print(f"error: {found}", file=sys.stderr)
        return 2
    from launcher.cli import main as command

    return command()


def _is_started_by_module() -> bool:
    return __name__ == "__main__"


if __name__ == "__main__":
    sys.exit(main())
