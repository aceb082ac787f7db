"""The command line: `python -m penstock`, and the script `penstock`.

Before anything of ours is imported it is made sure that it will be ours: a module of the same name may lie in front.
"""

import importlib.util
import os
import sys

_OURS = ("launcher", "pipelines", "predictors", "transforms")


def hiding() -> str | None:
    """The first file or folder that would be imported in the place of a package of ours."""
    for name in _OURS:
        found = importlib.util.find_spec(name)
        places = [] if found is None else [*(found.submodule_search_locations or ()), found.origin or ""]
        wanted = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), name)
        if places and not any(os.path.realpath(place) == os.path.realpath(wanted) for place in places):
            return places[0] or name
    return None


def main() -> int:
    """Run one command. Returns its exit code."""
    # `python -m` puts the working folder first. Modules there are a user's, and come behind ours.
    if not sys.flags.safe_path and sys.path and sys.path[0] in ("", os.getcwd()) and _is_started_by_module():
        sys.path.append(sys.path.pop(0))
    found = hiding()
    if found is not None:
        print(
            f"error: {found} hides a package of Penstock's of the same name; rename it, or take its folder off "
            "PYTHONPATH",
            file=sys.stderr,
        )
        return 2
    from launcher.cli import main as command

    return command()


def _is_started_by_module() -> bool:
    return __name__ == "__main__"


if __name__ == "__main__":
    sys.exit(main())
