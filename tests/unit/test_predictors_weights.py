"""Files that an ONNX model names, found without the onnx package."""

import contextlib

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from predictors.weights import External, external_files


def tensor(*locations: str) -> TensorProto:
    made = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    for location in locations:
        made.external_data.add(key="offset", value="0")
        made.external_data.add(key="location", value=location)
    return made


def constant(location: str) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["c"], value=tensor(location))


def graph(nodes: list[onnx.NodeProto], *initializers: TensorProto) -> onnx.GraphProto:
    return helper.make_graph(nodes, "graph", [], [], list(initializers))


def model(of: onnx.GraphProto, **parts: object) -> onnx.ModelProto:
    return helper.make_model(of, **parts)


def nested() -> onnx.ModelProto:
    """A model with a file in every place where a tensor may stand."""
    branch = graph([constant("branch")], tensor("inner"))
    sparse = onnx.SparseTensorProto(values=tensor("values"), indices=tensor("indices"), dims=[1])
    several = helper.make_node("Any", [], [], graphs=[graph([constant("graphs")])], tensors=[tensor("tensors")])
    several.attribute.add(name="s", type=onnx.AttributeProto.SPARSE_TENSOR, sparse_tensor=sparse)
    nodes = [helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch), several]
    main = graph(nodes, tensor("weights.bin"), tensor("sub/more.bin"), tensor("weights.bin"))
    main.sparse_initializer.append(onnx.SparseTensorProto(values=tensor("sparse")))
    made = model(main)
    function = made.functions.add(name="f")
    function.node.append(constant("function"))
    function.attribute_proto.append(helper.make_attribute("default", tensor("attribute")))
    made.training_info.add(algorithm=graph([], tensor("training")))
    return made


def test_every_tensor_is_found_and_those_of_the_main_graph_are_told_apart() -> None:
    found = external_files(nested().SerializeToString())

    assert sorted(found.initializers) == ["sub/more.bin", "weights.bin"]
    assert set(found.others) == {
        *("branch", "inner", "graphs", "tensors", "values", "indices"),
        *("sparse", "function", "attribute", "training"),
    }


def test_a_model_that_has_all_in_itself_names_none() -> None:
    weights = onnx.numpy_helper.from_array(np.zeros(1000, np.float32), "w")

    assert external_files(model(graph([], weights)).SerializeToString()) == External((), ())


def test_a_tensor_that_contradicts_itself_names_all_that_it_could_mean() -> None:
    unmarked = tensor("unmarked")
    unmarked.ClearField("data_location")
    data = model(graph([], tensor("first", "second"), unmarked)).SerializeToString()

    assert set(external_files(data).initializers) == {"first", "second", "unmarked"}


def test_of_a_field_that_comes_twice_the_last_counts() -> None:
    # StringStringEntryProto: key 1, value 2.
    entry = b"\x0a\x03key\x0a\x08location\x12\x01a\x12\x06hidden"
    of_tensor = b"\x6a" + bytes([len(entry)]) + entry
    of_graph = b"\x2a" + bytes([len(of_tensor)]) + of_tensor
    data = b"\x3a" + bytes([len(of_graph)]) + of_graph

    assert external_files(data).initializers == ("hidden",)
    assert onnx.ModelProto.FromString(data).graph.initializer[0].external_data[0].value == "hidden"


def test_what_onnx_cannot_read_of_a_model_cut_short_this_does_not_either() -> None:
    whole = nested().SerializeToString()

    for length in range(len(whole)):
        with contextlib.suppress(ValueError):
            external_files(whole[:length])
            # Cut between two fields.
            onnx.ModelProto.FromString(whole[:length])


@given(data=st.binary(max_size=200))
def test_any_bytes_are_walked_or_refused(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        external_files(data)


@pytest.mark.parametrize(
    "data",
    [b"\x3a", b"\x3a\x05abc", b"\x0b\x0c", b"\x00\x00", b"\xff" * 11, b"\x09abc", b"\x0d"],
    ids=["no length", "too long", "group", "number 0", "endless number", "cut 64 bit", "cut 32 bit"],
)
def test_what_is_no_protobuf_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"field|number"):
        external_files(data)
