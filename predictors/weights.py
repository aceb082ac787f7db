"""Where an ONNX model says that its weights lie in other files, found without the onnx package.

Of onnx.proto only as much is known as it takes to walk to every tensor.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from predictors.protobuf import fields

# Messages of onnx.proto that lead to tensors: which field holds which message.
_FIELDS: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Graph": {1: "Node", 5: "Initializer", 15: "SparseTensor"},
    "Function": {7: "Node", 11: "Attribute"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
}
_TENSORS = ("Tensor", "Initializer")
# Fields of TensorProto, and of its entries of external data.
_EXTERNAL_DATA = 13
_KEY, _VALUE = 1, 2


@dataclass(frozen=True)
class External:
    """Files outside of a model that it names.

    Args:
        initializers: named by initializers of the main graph, each once.
        others: named by any other tensor, as those in the graphs of branches.
    """

    initializers: tuple[str, ...]
    others: tuple[str, ...]


def external_files(model: bytes) -> External:
    """The names of the files that an ONNX model wants its weights from, as it writes them.

    Raises:
        ValueError: this is no such model.
    """
    initializers: dict[str, None] = {}
    others: dict[str, None] = {}
    view = memoryview(model)
    # What is still to be walked: a message, which it is, and whether that is the main graph or the model above it.
    left = [(view, "Model", True)]
    while left:
        data, message, is_main = left.pop()
        if message in _TENSORS:
            found = initializers if is_main and message == "Initializer" else others
            found |= dict.fromkeys(_locations(data))
            continue
        for number, value in fields(data):
            inner = _FIELDS[message].get(number)
            if inner is not None and isinstance(value, memoryview):
                outer = is_main and (message, inner) in (("Model", "Graph"), ("Graph", "Initializer"))
                left.append((value, inner, outer))
    return External(tuple(initializers), tuple(others))


def _locations(tensor: memoryview) -> Iterator[str]:
    """The files that a tensor names, be its data there or not: what says so may stand elsewhere in the encoding."""
    for number, value in fields(tensor):
        if number == _EXTERNAL_DATA and isinstance(value, memoryview):
            # Of a field that comes twice the last one counts.
            entry = {key: bytes(text) for key, text in fields(value) if isinstance(text, memoryview)}
            if entry.get(_KEY) == b"location":
                yield entry.get(_VALUE, b"").decode()
