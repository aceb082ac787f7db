"""The encoding of protobuf (https://protobuf.dev/programming-guides/encoding), as far as it takes to walk a message."""

from collections.abc import Iterator

# Varints are of 64 bits, and a tag of 32.
_MAX_VARINT_BYTES, _MAX_TAG = 10, 2**32 - 1


def fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of a message by number: a number, or a piece of `data`. Those of fixed width are left out.

    Raises:
        ValueError: this is no message.
    """
    for number, value, _ in pieces(data):
        if value is not None:
            yield number, value


def pieces(data: memoryview) -> Iterator[tuple[int, int | memoryview | None, memoryview]]:
    """The fields of a message by number, each with the piece of `data` that it is written in.

    The value of a field of fixed width is None.

    Raises:
        ValueError: this is no message.
    """
    at = 0
    while at < len(data):
        began = at
        tag, at = _varint(data, at)
        number, wire_type = tag >> 3, tag & 7
        if tag > _MAX_TAG or not number:
            raise ValueError("no field has such a number")
        value: int | memoryview | None = None
        match wire_type:
            case 0:
                value, at = _varint(data, at)
            case 1:
                at += 8
            case 5:
                at += 4
            case 2:
                size, start = _varint(data, at)
                at = start + size
                value = data[start:at]
            case _:
                raise ValueError("a field is of no known type")
        if at > len(data):
            raise ValueError("it ends within a field")
        yield number, value, data[began:at]


def varints(data: memoryview) -> Iterator[int]:
    """The numbers of a packed field."""
    at = 0
    while at < len(data):
        value, at = _varint(data, at)
        yield value


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """The number that begins at `at`, and where it ends."""
    value = 0
    for n, byte in enumerate(data[at : at + _MAX_VARINT_BYTES]):
        value |= (byte & 0x7F) << 7 * n
        if byte < 0x80:
            return value, at + n + 1
    raise ValueError("a number does not end")


def field(number: int, content: bytes) -> bytes:
    """A field that holds a text or a message."""
    return _written(number << 3 | 2) + _written(len(content)) + content


def _written(value: int) -> bytes:
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)
