"""What a field says of its column to the sink, beside its Arrow type, in metadata of our own."""

import pyarrow as pa

# Which type of PostgreSQL a column was, in SQL, where its Arrow type does not say it.
POSTGRES_TYPE = b"penstock:postgres_type"

_OURS = b"penstock:"


def marked(field: pa.Field) -> pa.Field:
    """`field` without the metadata of other programs."""
    ours = {key: value for key, value in (field.metadata or {}).items() if key.startswith(_OURS)}
    return field.with_metadata(ours) if ours else field.remove_metadata()


def unmarked(table: pa.Table) -> pa.Table:
    """`table` without our metadata, which is of no use to readers of a file."""
    fields = [field.remove_metadata() if marked(field).metadata else field for field in table.schema]
    return pa.Table.from_arrays(table.columns, schema=pa.schema(fields, table.schema.metadata))
