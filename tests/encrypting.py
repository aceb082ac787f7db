"""Parquet files of which some columns are encrypted."""

import base64
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe


class _Keys(pe.KmsClient):  # type: ignore[misc]
    """Keys that are not wrapped at all."""

    def __init__(self, _: object) -> None:
        super().__init__()

    def wrap_key(self, key: bytes, _: str) -> bytes:
        return base64.b64encode(key)

    def unwrap_key(self, key: bytes, _: str) -> bytes:
        return base64.b64decode(key)


def write_encrypted(file: Path, table: pa.Table, columns: Sequence[str], plain_footer: bool = True) -> None:
    """Write `table`, with `columns` encrypted under a key that nobody has."""
    config = pe.EncryptionConfiguration(
        footer_key="footer", column_keys={"columns": list(columns)}, plaintext_footer=plain_footer
    )
    properties = pe.CryptoFactory(_Keys).file_encryption_properties(pe.KmsConnectionConfig(), config)
    with pq.ParquetWriter(file, table.schema, encryption_properties=properties) as writer:
        writer.write_table(table)
