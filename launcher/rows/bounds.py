"""How large a page gets: by rows, as was asked, and by bytes, whatever was asked."""

from collections.abc import Iterable

import pyarrow as pa

# Pages are held in memory by a service that has other things to do.
MAX_PAGE_BYTES = 16 * 1024 * 1024


def bounded(
    batches: Iterable[pa.RecordBatch], limit: int, most_bytes: int = MAX_PAGE_BYTES
) -> tuple[list[pa.RecordBatch], bool]:
    """The first rows of some batches, which are read no further than the page goes: no more than `limit`, and no more
    than `most_bytes`, but one row if there is any.

    Returns:
        The rows, and whether there are more.
    """
    taken: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        if batch.num_rows == 0:
            continue
        if rows == limit:
            return taken, True
        fitting = min(batch.num_rows, limit - rows)
        while fitting and (size + batch.slice(0, fitting).nbytes > most_bytes):
            # Rows differ in size; half of them is no better guess than the mean, but it ends.
            fitting //= 2
        if rows == 0:
            fitting = max(fitting, 1)
        piece = batch.slice(0, fitting)
        if fitting:
            taken.append(piece)
        rows, size = rows + fitting, size + piece.nbytes
        if fitting < batch.num_rows:
            return taken, True
    return taken, False


def rows_at_a_time(rows: int, size: int, most_rows: int) -> int:
    """Of rows of which `rows` took `size` bytes, how many are decoded together so that it stays well below a page."""
    if not rows or not size:
        return most_rows
    return max(1, min(most_rows, MAX_PAGE_BYTES // 4 * rows // size))
