"""What the files of a job hold together: one schema, made of the footers of all of them, and what there is to say.

Values are read only where footers do not say enough: times of INT96, times of several units, and columns that are in
the files as well as in the names of their folders.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from predictors.bounds import Bounds
from predictors.notices import Notice
from predictors.taking import no_values
from transforms.errors import InputError
from transforms.sources.conforming import Lossy, conform_exactly
from transforms.sources.filecolumns import FileColumns, widens
from transforms.sources.files import Unit, encrypted_columns, fingerprint, open_file
from transforms.sources.int96 import int96_columns, units_that_fit
from transforms.sources.partitions import Partitions, partition_of, partition_value
from transforms.sources.unifying import NoCommonType, common_type, in_micros, units_of

_SCAN_ROWS = 65_536
# Of the files that hold a column under one type, as much as a message names.
_SHOWN_TYPES = 4


@dataclass(frozen=True)
class Survey:
    """What files hold together.

    Args:
        schema: the columns that all of them can be read under.
        closed: other columns, and why they cannot be read.
        stamps: a fingerprint of each file, from before it was looked at.
        notices: what is unified or missing, and what else is worth a word.
    """

    schema: pa.Schema
    closed: Mapping[str, str]
    stamps: tuple[str, ...]
    notices: tuple[Notice, ...]


@dataclass
class _Alike:
    """Files that hold the same columns.

    Args:
        schema: their own, INT96 under a unit that keeps every value.
        int96: the columns that have such times, and under which unit.
        rows: of all of them together.
    """

    schema: pa.Schema
    int96: Mapping[str, Unit]
    rows: int = 0
    files: list[str] = field(default_factory=list)

    @property
    def first(self) -> str:
        return self.files[0]


@dataclass
class _Closed:
    """Columns that cannot be read, and why: the first reason that was found."""

    reasons: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, reason: str) -> None:
        self.reasons.setdefault(name, reason)


def survey(files: Sequence[str], within: Bounds | None, declared: Mapping[str, pa.DataType]) -> Survey:
    """Look at all files, and find the columns that they have in common.

    Args:
        within: where they have to lie, wherever their names lead; None: anywhere.
        declared: types that columns are to be read as, whatever the files hold.

    Raises:
        InputError: a file cannot be read, or the declared types do not go with it, or its folders say other columns
            than those of the first file.
    """
    partitions = Partitions.of(files, declared)
    closed = _Closed()
    groups, stamps = _grouped(files, within, closed)
    names = dict.fromkeys(name for group in groups for name in group.schema.names)
    _check_declared(declared, [*names, *closed.reasons, *partitions.types], files[0])
    fields: list[pa.Field] = []
    notices: list[Notice] = []
    for name in names:
        if name in partitions.types:
            closed.reasons.pop(name, None)
            fields.append(pa.field(name, partitions.types[name]))
            notices += _differing(name, groups, within)
        elif name not in closed.reasons:
            column = _Column(name, groups, within, len(files))
            found = column.read_as(declared.get(name), closed)
            if found is not None:
                fields.append(found)
                notices += column.notices(found.type, name in declared)
    fields += [pa.field(name, type) for name, type in partitions.types.items() if name not in names]
    left_out = {name: reason for name, reason in closed.reasons.items() if name not in partitions.types}
    notices += [Notice("column_closed", f"input: {reason}; the column is left out") for reason in left_out.values()]
    return Survey(pa.schema(fields), left_out, stamps, tuple(notices))


def _grouped(files: Sequence[str], within: Bounds | None, closed: _Closed) -> tuple[list[_Alike], tuple[str, ...]]:
    """The files, those with the same columns together, and a fingerprint of each."""
    groups: dict[tuple[str, tuple[tuple[str, Unit], ...]], _Alike] = {}
    last: _Alike | None = None
    stamps = []
    for file in files:
        try:
            stamps.append(fingerprint(file))
        except OSError:
            # Said where it is opened.
            stamps.append("")
        opened = open_file(file, within)
        schema, int96 = _own_schema(opened, file, within, closed)
        if last is None or last.int96 != int96 or not last.schema.equals(schema):
            last = groups.setdefault((schema.to_string(), tuple(int96.items())), _Alike(schema, int96))
        last.files.append(file)
        last.rows += opened.metadata.num_rows
    return list(groups.values()), tuple(stamps)


def _own_schema(
    opened: pq.ParquetFile, file: str, within: Bounds | None, closed: _Closed
) -> tuple[pa.Schema, dict[str, Unit]]:
    """The columns of a file, and which of them have times of INT96, under which unit."""
    schema = opened.schema_arrow.remove_metadata()
    if len(set(schema.names)) < len(schema):
        for name in {name for name in schema.names if schema.names.count(name) > 1}:
            closed.add(name, f"{file}: two columns are named {name!r}; give each its own name")
    for name in encrypted_columns(opened, file, within):
        closed.add(name, f"{file}: column {name!r} is encrypted, and Penstock has no key")
    fields = {each.name: each.remove_metadata() for each in schema}
    names = [name for name in int96_columns(opened, file, within) if name not in closed.reasons]
    if not names:
        return pa.schema(list(fields.values())), {}
    int96: dict[str, Unit] = {}
    coarser = open_file(file, within, "us").schema_arrow
    for name, unit in units_that_fit(file, within, names).items():
        if unit is None:
            line = "has times (INT96) that fit neither nanoseconds, 1677 to 2262, nor microseconds without loss"
            closed.add(name, f"{file}: column {name!r} {line}")
            continue
        int96[name] = unit
        if unit == "us":
            fields[name] = coarser.field(name).remove_metadata()
    return pa.schema(list(fields.values())), int96


def _check_declared(declared: Mapping[str, pa.DataType], names: Sequence[str], first: str) -> None:
    for name in declared:
        if name not in names:
            known = ", ".join(dict.fromkeys(names))
            raise InputError(f"input.schema names {name!r}, which the files do not have, as {first}: {known}")


@dataclass
class _Column:
    """One column of all files."""

    name: str
    groups: Sequence[_Alike]
    within: Bounds | None
    files: int

    @property
    def having(self) -> list[_Alike]:
        return [group for group in self.groups if self.name in group.schema.names]

    @property
    def telling(self) -> list[_Alike]:
        """Those whose types matter: where there are no rows, as some writers make files, no value can change."""
        return [group for group in self.having if group.rows] or self.having

    def type_in(self, group: _Alike) -> pa.DataType:
        return group.schema.field(self.name).type

    def read_as(self, declared: pa.DataType | None, closed: _Closed) -> pa.Field | None:
        """The column as the job reads it; None where there is no type for it, which `closed` is told."""
        having = self.having
        nullable = len(having) < len(self.groups) or any(group.schema.field(self.name).nullable for group in having)
        if declared is not None:
            self._check_readable(declared)
            type = declared
        else:
            common = self._common_type(closed)
            if common is None:
                return None
            type = common
        return pa.field(self.name, type, nullable)

    def notices(self, type: pa.DataType, is_declared: bool) -> Iterator[Notice]:
        """What there is to say once the column is read as `type`."""
        others = [group for group in self.having if self.type_in(group) != type]
        if others and not is_declared:
            shown = {str(self.type_in(group)): group.first for group in reversed(self.having)}
            kinds = [f"{kind} in {file}" for kind, file in reversed(shown.items())][:_SHOWN_TYPES]
            line = f"column {self.name!r} is {', '.join(kinds)}; it is read as {type}"
            yield Notice("types_unified", line, sum(len(group.files) for group in others))
        lacking = [file for group in self.groups if self.name not in group.schema.names for file in group.files]
        if lacking:
            line = f"column {self.name!r} is not in every file, such as {lacking[0]}; it is null in their rows"
            yield Notice("column_missing_in_files", line, len(lacking))

    def _common_type(self, closed: _Closed) -> pa.DataType | None:
        having = self.telling
        common = self.type_in(having[0])
        for group in having[1:]:
            given = self.type_in(group)
            try:
                common = common_type(common, given)
            except NoCommonType:
                other = next((each for each in having if _are_apart(self.type_in(each), given)), having[0])
                closed.add(self.name, f"{self._differ(group, other)}; give it a type in input.schema")
                return None
        if any(self.type_in(group) != common for group in having) and "ns" in units_of(common):
            return self._unit_that_fits(common, closed)
        return common

    def _unit_that_fits(self, finest: pa.DataType, closed: _Closed) -> pa.DataType | None:
        """Nanoseconds where the times of coarser files fit them, or else microseconds where no digit is lost."""
        for type in (finest, in_micros(finest)):
            try:
                for group in self.having:
                    if self.type_in(group) != type:
                        self._check_all(group, type)
                return type
            except Lossy:
                continue
        first, *rest = self.having
        other = next((group for group in rest if self.type_in(group) != self.type_in(first)), first)
        closed.add(self.name, f"{self._differ(other, first)}, and no unit keeps the times of both")
        return None

    def _check_readable(self, declared: pa.DataType) -> None:
        """Demand that the declared type can be had of each file's, and of every time of INT96.

        Raises:
            InputError: it cannot.
        """
        for group in self.telling:
            given = self.type_in(group)
            try:
                if not widens(given, declared):
                    conform_exactly(no_values(given), declared)
                if self.name in group.int96:
                    # Text, say, would depend on the unit under which it was made.
                    is_alike = in_micros(given) == in_micros(declared) and len(units_of(declared)) == 1
                    if not is_alike and not pa.types.is_temporal(declared):
                        raise Lossy("times of INT96 are read as timestamps of one unit")
                    self._check_all(group, declared)
            except (Lossy, pa.ArrowException) as error:
                raise InputError(
                    f"input.schema has {declared} for column {self.name!r}, which is {given} in {group.first} and "
                    f"cannot be read so without changing a value ({' '.join(str(error).split())}); give another type"
                ) from error

    def _check_all(self, group: _Alike, type: pa.DataType) -> None:
        """Read the column of all files of a group, to see whether it can be read as `type`.

        Raises:
            Lossy: a value would change.
        """
        unit = group.int96.get(self.name)
        for file in group.files:
            FileColumns(file, pa.schema([(self.name, type)]), self.within, unit).check(_SCAN_ROWS)

    def _differ(self, group: _Alike, other: _Alike) -> str:
        given, wanted = self.type_in(group), self.type_in(other)
        return f"{group.first}: column {self.name!r} is {given}, but {wanted} in {other.first}"


def _are_apart(one: pa.DataType, other: pa.DataType) -> bool:
    try:
        common_type(one, other)
    except NoCommonType:
        return True
    return False


def _differing(name: str, groups: Sequence[_Alike], within: Bounds | None) -> Iterator[Notice]:
    """What there is to say of a column that files have, and their folders, too: the folders are believed."""
    having = [group for group in groups if name in group.schema.names]
    differing = [
        file
        for group in having
        for file in group.files
        if not _says_the_same(file, group.schema.field(name), partition_of(file)[name], within)
    ]
    if differing:
        line = f"column {name!r} is in files, too, and says otherwise than their folders, such as {differing[0]}"
        yield Notice("partition_differs", f"{line}; what the folders say is read", len(differing))


def _says_the_same(file: str, column: pa.Field, value: str | None, within: Bounds | None) -> bool:
    """Whether a column of a file has nothing but the value that its folder says."""
    try:
        said = partition_value(column.name, value, column.type, file)
    except InputError:
        return False
    opened = open_file(file, within)
    try:
        for batch in opened.iter_batches(batch_size=_SCAN_ROWS, columns=[column.name]):
            own = batch.column(column.name)
            if not said.is_valid:
                if own.null_count < len(own):
                    return False
            elif own.null_count or not pc.all(pc.equal(own, said)).as_py():
                return False
    except (pa.ArrowException, OSError):
        return False
    return True
