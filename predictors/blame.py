"""Where in a user's code an exception came from, for messages, rejects and the log."""

import contextlib
import logging
import os
import sys
import sysconfig
import threading
import traceback
from collections.abc import Iterator, Sequence
from types import FrameType, TracebackType

_log = logging.getLogger("predictors")

# An exception that went through `blame` carries its place under this name.
_PLACE = "penstock_place"
_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_OURS = tuple(
    os.path.join(_ROOT, name, "") for name in ("launcher", "penstock", "pipelines", "predictors", "transforms")
)
_STDLIB = tuple({os.path.join(sysconfig.get_path(name), "") for name in ("stdlib", "platstdlib")})
_INSTALLED = ("site-packages", "dist-packages")
# Tracebacks of one model that are logged; more distinct failures than this are one kind of failure.
_MAX_LOGGED = 20

_logged: dict[str, set[tuple[str, str]]] = {}
_logging = threading.Lock()


def blame(error: BaseException, own: Sequence[str] = ()) -> None:
    """Keep with `error` where in the user's code it came from; `place_in` reads it.

    Args:
        own: folders and files that are the user's, though they may be installed.
    """
    place = place_of(error, own)
    if place is not None:
        # Some exceptions take no attributes.
        with contextlib.suppress(AttributeError, TypeError):
            setattr(error, _PLACE, place)


def place_in(error: BaseException) -> str | None:
    """What `blame` has kept: `churn_model.py:17 in predict`."""
    return getattr(error, _PLACE, None)


def place_of(error: BaseException, own: Sequence[str] = ()) -> str | None:
    """The innermost line of the user's code that `error` came through; None where there is none.

    The user's is what is neither installed, nor Python's own, nor Penstock's.
    """
    if isinstance(error, SyntaxError) and error.filename and error.lineno and not error.filename.startswith("<"):
        return f"{shown_file(error.filename)}:{error.lineno}"
    frames = [(frame, line) for frame, line in _frames(error.__traceback__) if _is_users(frame.f_code.co_filename, own)]
    if not frames:
        return None
    file, line = frames[-1][0].f_code.co_filename, frames[-1][1]
    # A comprehension is a frame of its own, without a name to show.
    named = (frame.f_code for frame, _ in reversed(frames) if frame.f_code.co_filename == file)
    name = next((code.co_name for code in named if not code.co_name.startswith("<")), None)
    return f"{shown_file(file)}:{line}" + (f" in {name}" if name else "")


def shown_file(file: str) -> str:
    """A file as its user calls it: from the working folder on, or from the folder that it is imported from."""
    for folder in [os.getcwd(), *sorted(filter(os.path.isabs, sys.path), key=len, reverse=True)]:
        inside = os.path.join(folder, "")
        if file.startswith(inside):
            return file.removeprefix(inside)
    return file


def log_once(error: BaseException, model: str) -> None:
    """Log the traceback of `error`, unless one of the same kind and place was logged for `model`."""
    key = (type(error).__name__, place_in(error) or "")
    with _logging:
        seen = _logged.setdefault(model, set())
        if key in seen or len(seen) >= _MAX_LOGGED:
            return
        seen.add(key)
    trace = "".join(traceback.format_exception(error)).rstrip()
    _log.info("model %s failed; further failures at this place are not logged\n%s", model, trace)


def _frames(trace: TracebackType | None) -> Iterator[tuple[FrameType, int]]:
    while trace is not None:
        yield trace.tb_frame, trace.tb_lineno
        trace = trace.tb_next


def _is_users(file: str, own: Sequence[str]) -> bool:
    if any(file == each or file.startswith(os.path.join(each, "")) for each in own):
        return True
    if file.startswith(("<", *_OURS)):
        return False
    return not file.startswith(_STDLIB) and not any(part in _INSTALLED for part in file.split(os.sep))
