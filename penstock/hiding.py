"""Whether Python would import a user's module in the place of a package of ours, which is of the same name."""

import importlib.util
import os
from collections.abc import Iterable

OURS = ("launcher", "pipelines", "predictors", "transforms")


def hiding(names: Iterable[str]) -> str | None:
    """A line about the first file or folder that would be imported in the place of one of our packages."""
    for name in names:
        try:
            found = importlib.util.find_spec(name)
        except ValueError:  # of a module that was made by hand
            found = None
        places = [] if found is None else [*(found.submodule_search_locations or ()), found.origin or ""]
        wanted = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), name)
        if places and not any(os.path.realpath(place) == os.path.realpath(wanted) for place in places):
            return (
                f"{places[0] or name} hides a package of Penstock's of the same name; "
                "rename it, or take its folder off sys.path (PYTHONPATH)"
            )
    return None
