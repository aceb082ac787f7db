"""From `module:Class` to the class; each way in which it is not there has its own line and remedy."""

import ast
import difflib
import importlib
import importlib.util
import inspect
import os
import sys
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

from predictors.blame import blame, log_once, place_in, shown_file
from predictors.errors import ModelNotLoadable
from predictors.recovery import text_of

# Penstock's own packages: no module of a user's can be imported under such a name.
OURS = ("launcher", "penstock", "pipelines", "predictors", "transforms")
# Modules of a user's that are looked at for what they import.
_MAX_READ = 200


def find_class(uri: str) -> type:
    """Import the class that `uri` names.

    Raises:
        ModelNotLoadable: there is no such class, or importing it fails.
    """
    name, colon, cls = uri.partition(":")
    if not (name and colon and cls):
        raise ModelNotLoadable(f"model {uri}: name it as module:Class{_written_as_path(uri)}")
    if name.endswith(".py"):
        raise ModelNotLoadable(f"model {uri}: name the module, not its file{_written_as_path(uri)}")
    check_names(uri, os.getcwd())
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise _not_found(uri, name, error) from error
    except (Exception, SystemExit) as error:
        blame(error)
        log_once(error, uri)
        remedy = ""
        if isinstance(error, ImportError) and "no known parent package" in str(error):
            # A folder that is no package is made one by starting above it.
            remedy = f"; name it with its package, as {Path(os.getcwd()).name}.{uri}, and start from the folder above"
        raise ModelNotLoadable(f"model {uri}: importing it failed: {named(error)}{remedy}") from error
    try:
        found = getattr(module, cls)
    except AttributeError as error:
        raise ModelNotLoadable(f"model {uri}: module {name} has no class {cls}{_nearest(module, cls)}") from error
    _check_class(uri, found)
    return found


def named(error: BaseException) -> str:
    """An error with its class, in a line."""
    text = text_of(error)
    if isinstance(error, SyntaxError) and place_in(error):
        text = f"{error.msg} ({place_in(error)})"
    return f"{type(error).__name__}: {text}"


def defined_at(thing: Any) -> str:
    """Where a class or function is written, in brackets, with a blank before; nothing where that is not known."""
    try:
        file, line = inspect.getsourcefile(thing), inspect.getsourcelines(thing)[1]
    except (OSError, TypeError):
        return ""
    return f" ({shown_file(os.path.abspath(file))}:{line})" if file else ""


def _check_class(uri: str, found: Any) -> None:
    if isinstance(found, type):
        return
    name = uri.partition(":")[2]
    if inspect.isroutine(found):
        raise ModelNotLoadable(
            f"model {uri} is a function{defined_at(found)}, and a class is wanted; write a class whose method "
            f"predict(self, rows) returns {name}(rows), and name that"
        )
    if inspect.ismodule(found):
        raise ModelNotLoadable(f"model {uri} is a module; name it as {found.__name__}:Class")
    what = type(found).__name__
    raise ModelNotLoadable(f"model {uri} is a value of type {what}, and a class is wanted; name a class")


def _nearest(module: Any, cls: str) -> str:
    classes = [name for name, each in vars(module).items() if isinstance(each, type) and not name.startswith("_")]
    own = [name for name in classes if vars(module)[name].__module__ == module.__name__]
    near = difflib.get_close_matches(cls.lower(), [name.lower() for name in classes], n=1)
    if near:
        return f"; did you mean {next(name for name in classes if name.lower() == near[0])}?"
    return f"; it has {', '.join(own[:10])}" if own else ""


def written_as_class(uri: str) -> str | None:
    """What a file's path, or a path with dots, is as `module:Class`, and where it is found; None for anything else."""
    file, _, cls = uri.partition(":")
    if file.endswith(".py"):
        module = file.removesuffix(".py").removeprefix("./").replace("/", ".")
        if all(part.isidentifier() for part in module.split(".")):
            return f"{module}:{cls or 'Class'}"
        return f"{Path(file).stem}:{cls or 'Class'}, and start from the folder of the file"
    head, dot, last = uri.rpartition(".")
    if dot and last[:1].isupper() and all(part.isidentifier() for part in uri.split(".")):
        return f"{head}:{last}"
    return None


def _written_as_path(uri: str) -> str:
    written = written_as_class(uri)
    return f", here {written}" if written else ""


def _not_found(uri: str, name: str, error: ModuleNotFoundError) -> ModelNotLoadable:
    missing = error.name or ""
    if name == missing or name.startswith(f"{missing}."):
        folder = os.getcwd()
        near = difflib.get_close_matches(missing, _modules_in(folder), n=1)
        hint = f"did you mean {near[0]}?" if near else "start from the folder of the module, or install it"
        if missing in sys.modules or "not a package" in str(error):
            hint = f"{missing} is not in its package"
        return ModelNotLoadable(
            f"model {uri}: {error}; it was looked for in the working folder {folder} (in a service: the model's "
            f"--import-path), then among what is installed; {hint}"
        )
    blame(error)
    return ModelNotLoadable(
        f"model {uri}: importing it failed: {text_of(error)}; install it beside Penstock, by "
        f"{shown_file(sys.executable)} -m pip install"
    )


def _modules_in(folder: str) -> list[str]:
    try:
        entries = sorted(Path(folder).iterdir())
    except OSError:
        return []
    return [entry.stem for entry in entries if entry.suffix == ".py" or (entry / "__init__.py").exists()]


# --- names that are taken ------------------------------------------------------------------------------------------


def check_names(uri: str, folder: str) -> None:
    """Demand that the model's module, and those of the folder that it imports, get the modules that they mean.

    Penstock's packages are found before those in the working folder, so that an `import transforms` of a user's that
    means the file beside it would get ours. Nothing is imported for this: the files are read.

    Args:
        uri: `module:Class`.
        folder: where the user's modules are.

    Raises:
        ModelNotLoadable: a module in `folder` is hidden by one of ours and imported, or is the model's.
    """
    taken = {name: path for name in OURS if (path := _module_in(folder, name)) is not None}
    if not taken:
        return
    todo, seen = [uri.partition(":")[0]], set[str]()
    while todo and len(seen) < _MAX_READ:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        top = name.partition(".")[0]
        if top in taken:
            raise ModelNotLoadable(
                f"model {uri}: {taken[top]} cannot be imported, as Penstock has a package {top!r} of its own, which is "
                f"found first; rename it, or move it into a package of yours"
            )
        found = _found_in(folder, name)
        if found is not None and found.origin and found.origin.endswith(".py"):
            todo += _imports(found.origin, name, is_package=found.submodule_search_locations is not None)


def _module_in(folder: str, name: str) -> str | None:
    """What a folder has under the name of a module; None where that is nothing, or Penstock itself."""
    ours = importlib.util.find_spec(name)
    for path in (os.path.join(folder, f"{name}.py"), os.path.join(folder, name)):
        is_module = os.path.isfile(path) if path.endswith(".py") else _has_modules(path)
        places = [ours.origin, *(ours.submodule_search_locations or ())] if ours else []
        if is_module and not any(place and os.path.exists(place) and os.path.samefile(place, path) for place in places):
            return shown_file(path)
    return None


def _has_modules(path: str) -> bool:
    return os.path.isdir(path) and any(entry.endswith(".py") for entry in os.listdir(path))


def _found_in(folder: str, name: str) -> ModuleSpec | None:
    """Where a module in `folder` is written, looked up without importing it."""
    path: list[str] | None = [folder]
    found: ModuleSpec | None = None
    at = ""
    for part in name.split("."):
        at = f"{at}.{part}" if at else part
        found = PathFinder.find_spec(at, path)
        if found is None:
            return None
        path = list(found.submodule_search_locations or ())
    return found


def _imports(file: str, name: str, is_package: bool) -> list[str]:
    """The modules that a file imports, those that its functions import, too."""
    try:
        tree = ast.parse(Path(file).read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return []
    found: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = name.split(".")
                package = package[: len(package) - node.level + (1 if is_package else 0)]
                base = ".".join([*package, *filter(None, [base])])
            if base:
                found += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return found
