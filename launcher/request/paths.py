"""Paths that a request names: local ones, as they stand or as `file://`; what is none is refused by its scheme."""

import os
import re
from urllib.parse import unquote_to_bytes

# A drive's letter is no scheme; two letters and a slash are meant as one, however many slashes there are.
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")
_DRIVE = re.compile(r"[A-Za-z]:[\\/]|\\\\")
_FILE = re.compile(r"file:(?://([^/]*)(/.*)|(/(?!/).*))", re.IGNORECASE | re.DOTALL)
_HERE = ("", "localhost")


def path_fault(path: str) -> str | None:
    """What a path is that is none of this machine, and what to do, to follow the path; None where it is one.

    A file whose name looks like a URL is named with its folder, as `./s3:/x`.
    """
    if _DRIVE.match(path):
        return "a path of Windows; write one of this machine, or ./… for a file of that name"
    scheme = _SCHEME.match(path)
    if scheme is None:
        return None
    if scheme[1].lower() != "file":
        remedy = "write a local path or file:///…, or ./… for a file of that name"
        return f"and {scheme[1].lower()}:// is not supported yet; {remedy}"
    parts = _FILE.fullmatch(path)
    if parts is None or (parts[1] or "").lower() not in _HERE:
        return "which names another machine; write file:///folder/file, or the path alone"
    return None


def local_path(path: str) -> str:
    """The path that a text names, once there is no fault in it. Escapes of a `file://` are decoded if they are text."""
    parts = _FILE.fullmatch(path)
    if parts is None:
        return path
    encoded = parts[2] or parts[3]
    try:
        decoded = unquote_to_bytes(encoded).decode()
    except UnicodeDecodeError:
        return encoded
    return encoded if "\0" in decoded else decoded


def home_fault(path: str) -> str | None:
    """What is wrong with `~` or `~user` in front of a path, to follow it; None where it is somebody's home folder."""
    if not path.startswith("~") or os.path.expanduser(path) != path:
        return None
    return f"and {path.split(os.sep)[0]} is nobody's home folder; write the folder, or ./… for a file of that name"


def at_home(path: str) -> str:
    """The path that a text of the command line names, where `~` and `~user` are home folders."""
    return os.path.expanduser(path) if path.startswith("~") else path
