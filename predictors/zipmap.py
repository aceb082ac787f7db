"""The maps of probabilities that exporters put at the end of a classifier, taken off the model again.

scikit-learn's and LightGBM's converters end a graph by default with an operator `ZipMap`, which turns a tensor of
probabilities [n, classes] into n dictionaries. The tensor is what a table wants, and hundreds of times faster.
"""

from dataclasses import dataclass

from predictors.protobuf import field, fields, pieces, varints

# Fields of onnx.proto's messages.
_MODEL_GRAPH = 7
_GRAPH_NODE, _GRAPH_OUTPUT = 1, 12
_NODE_INPUT, _NODE_OUTPUT, _NODE_OP, _NODE_ATTRIBUTE, _NODE_DOMAIN = 1, 2, 4, 5, 7
_ATTRIBUTE_INTS, _ATTRIBUTE_STRINGS = 8, 9
_VALUE_NAME = 1


@dataclass(frozen=True)
class ZipMap:
    """An output that is a map for each row.

    Args:
        output: its name.
        tensor: the tensor of its values.
        classes: the maps' keys, in the order of the tensor's columns.
    """

    output: str
    tensor: str
    classes: tuple[int | str, ...]


def without_zipmaps(model: bytes) -> tuple[bytes, dict[str, ZipMap]]:
    """An ONNX model whose outputs are tensors in place of maps, and what these were, by the maps' names.

    A map that is made in any other way stays.

    Raises:
        ValueError: this is no ONNX model.
    """
    rest, graph = [], bytearray()
    for number, value, piece in pieces(memoryview(model)):
        # Of a message that comes twice the parts are joined.
        if number == _MODEL_GRAPH and isinstance(value, memoryview):
            graph += value
        else:
            rest.append(piece)
    parts = list(pieces(memoryview(graph)))
    outputs = [_text(value, _VALUE_NAME) for number, value, _ in parts if number == _GRAPH_OUTPUT]
    nodes = [_zipmap(value) for number, value, _ in parts if number == _GRAPH_NODE]
    found = {node.output: node for node in nodes if node is not None and node.output in outputs}
    if not found:
        return model, {}
    kept = [piece for number, value, piece in parts if not _is_of(number, value, found)]
    tensors = [name for name in dict.fromkeys(zipmap.tensor for zipmap in found.values()) if name not in outputs]
    added = [field(_GRAPH_OUTPUT, field(_VALUE_NAME, name.encode())) for name in tensors]
    return b"".join([*rest, field(_MODEL_GRAPH, b"".join([*kept, *added]))]), found


def _is_of(number: int, value: int | memoryview | None, found: dict[str, ZipMap]) -> bool:
    """Whether this part of a graph is one of the operators, or the output that it fills."""
    if number == _GRAPH_OUTPUT:
        return _text(value, _VALUE_NAME) in found
    zipmap = _zipmap(value) if number == _GRAPH_NODE else None
    return zipmap is not None and zipmap.output in found


def _zipmap(node: int | memoryview | None) -> ZipMap | None:
    """What an operator is, if it is one of these."""
    if _text(node, _NODE_OP) != "ZipMap" or _text(node, _NODE_DOMAIN) != "ai.onnx.ml":
        return None
    classes: list[int | str] = []
    for number, attribute in fields(node) if isinstance(node, memoryview) else ():
        if number != _NODE_ATTRIBUTE or not isinstance(attribute, memoryview):
            continue
        for kind, value in fields(attribute):
            if kind == _ATTRIBUTE_STRINGS and isinstance(value, memoryview):
                classes.append(bytes(value).decode())
            elif kind == _ATTRIBUTE_INTS:
                classes += [_signed(each) for each in ([value] if isinstance(value, int) else varints(value))]
    return ZipMap(_text(node, _NODE_OUTPUT), _text(node, _NODE_INPUT), tuple(classes)) if classes else None


def _text(message: int | memoryview | None, wanted: int) -> str:
    """The text in a field of a message; empty where it has none."""
    found = b""
    for number, value in fields(message) if isinstance(message, memoryview) else ():
        if number == wanted and isinstance(value, memoryview):
            found = bytes(value)
    return found.decode()


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value
