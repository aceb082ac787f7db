"""What the parts of a job's spec have in common: each says itself which paths and connections it names.

A part is a frozen dataclass whose fields are marked where they are declared, so that whoever confines paths, fills in
connections or looks for what a job would destroy asks the part, and needs to know no kind of it:

    @dataclass(frozen=True)
    class CsvInput(SpecValue):
        path: Annotated[tuple[str, ...], PathMark("read", is_pattern=True)]
        connection: Annotated[str | None, CONNECTION] = field(default=None, repr=False)
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Self, TypeVar, get_type_hints

Role = Literal["read", "written"]
_Mark = TypeVar("_Mark")


@dataclass(frozen=True)
class PathMark:
    """Marks a field that holds a path, a tuple of paths, or None. An empty path is one that the service will choose.

    Args:
        role: whether the job reads what lies there, or writes there.
        is_pattern: whether it may be a glob or a folder that is searched; otherwise it is one place.
    """

    role: Role
    is_pattern: bool = False


@dataclass(frozen=True)
class ConnectionMark:
    """Marks a field that holds a connection's name or URI, or None; empty stands for the default one."""


CONNECTION = ConnectionMark()


@dataclass(frozen=True)
class NamedPath:
    """A path that a spec names.

    Args:
        field: where it stands in the spec, as `input.path`.
        path: as it is written there.
        role: whether the job reads what lies there, or writes there.
        is_pattern: whether it may be a glob or a folder that is searched; otherwise it is one place.
    """

    field: str
    path: str
    role: Role
    is_pattern: bool = False


@dataclass(frozen=True)
class NamedConnection:
    """A connection that a spec names: where it stands, as `input.connection`, and its name or URI."""

    field: str
    name: str


class SpecValue:
    """A part of a spec: a frozen dataclass whose fields say which of them are paths or connections."""

    @classmethod
    def from_request(cls, values: Mapping[str, Any]) -> Self:
        """The part that a request wrote, once nothing is wrong with it: lists for tuples, None for what is left out.

        A connection or a place that is left out, and has no default, is empty: the default one, the service's choice.
        """
        given = {name: tupled(value) for name, value in values.items() if value is not None}
        marked = (name for name, _ in _marks(cls) if not hasattr(cls, name))  # type: ignore[arg-type]  # as in `_marked`
        return cls(**dict.fromkeys(marked, "") | given)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The part that `to_json` wrote; a field that is lacking has its default."""
        return cls(**{name: tupled(value) for name, value in values.items()})

    def to_json(self) -> dict[str, Any]:
        """The part as JSON values."""
        return asdict(self)  # type: ignore[call-overload]

    def paths(self) -> Iterator[NamedPath]:
        """The paths that are named, in the order of the fields; not those that the service will choose."""
        for name, mark, values in self._marked(PathMark):
            yield from (NamedPath(name, path, mark.role, mark.is_pattern) for path in values if path)

    def with_paths(self, change: Callable[[NamedPath], str]) -> Self:
        """The part with each of its `paths` changed."""

        def changed(name: str, mark: PathMark, path: str) -> str:
            return change(NamedPath(name, path, mark.role, mark.is_pattern)) if path else path

        return self._with(PathMark, changed)

    def connections(self) -> Iterator[NamedConnection]:
        """The connections that are named, the default one, an empty name, among them."""
        for name, _, values in self._marked(ConnectionMark):
            yield from (NamedConnection(name, value) for value in values)

    def with_connections(self, change: Callable[[str], str]) -> Self:
        """The part with the name of each of its `connections` changed."""
        return self._with(ConnectionMark, lambda name, mark, value: change(value))

    @property
    def lacks_place(self) -> bool:
        """Whether the service has to choose where this is written."""
        return any(mark.role == "written" and "" in values for _, mark, values in self._marked(PathMark))

    def placed(self, path: str) -> Self:
        """The part with `path` as the place that it lacks."""
        return self._with(PathMark, lambda name, mark, old: old or path)

    def _marked(self, kind: type[_Mark]) -> Iterator[tuple[str, _Mark, tuple[str, ...]]]:
        """The fields that are so marked: name, mark, and values."""
        for name, mark in _marks(type(self)):  # type: ignore[arg-type]  # it takes the class for an instance of it
            if isinstance(mark, kind):
                value = getattr(self, name)
                yield name, mark, () if value is None else value if isinstance(value, tuple) else (value,)

    def _with(self, kind: type[_Mark], change: Callable[[str, _Mark, str], str]) -> Self:
        changed: dict[str, Any] = {}
        for name, mark, values in self._marked(kind):
            new, held = tuple(change(name, mark, value) for value in values), getattr(self, name)
            changed[name] = new if isinstance(held, tuple) else new[0] if new else held
        return replace(self, **changed)  # type: ignore[type-var]


def tupled(value: Any) -> Any:
    """A value of JSON with tuples in the place of lists, as frozen dataclasses hold them."""
    return tuple(map(tupled, value)) if isinstance(value, list | tuple) else value


@functools.cache
def _marks(cls: type[Any]) -> tuple[tuple[str, Any], ...]:
    """The fields of a part that are marked, in their order."""
    hints = get_type_hints(cls, include_extras=True)
    return tuple((name, mark) for name, hint in hints.items() for mark in getattr(hint, "__metadata__", ()))
