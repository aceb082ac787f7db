"""What a job asks of a destination that is there already; apart, so that a spec can be read without loading Arrow.

`error_if_exists` refuses it, `overwrite` replaces all that is there, `append` adds to it.
"""

from typing import Literal

Mode = Literal["error_if_exists", "overwrite", "append"]


def check_appends_to(mode: Mode, appends_to: str | None) -> None:
    """Demand that only who appends names the job to whose result it is.

    Raises:
        ValueError: it is named with another mode.
    """
    if appends_to is not None and mode != "append":
        raise ValueError(f"appends_to={appends_to!r} goes with mode 'append' only, not with {mode!r}")


def other_result(wanted: str, found: str | None) -> str:
    """Why nothing can be added to the result of the job `wanted` where `found` published last."""
    if found is None:
        return f"it holds no result of {wanted}, to which rows were to be added; nothing was added"
    return f"it now holds the result of another job, {found}, which published after {wanted}; nothing was added"
