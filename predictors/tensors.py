"""What Arrow, NumPy and ONNX call the same element types."""

from typing import Any

import numpy as np
import pyarrow as pa

# ONNX element types (onnx.proto, TensorProto.DataType), as ONNX Runtime spells them, that Arrow columns can hold.
ARROW_TYPES: dict[str, pa.DataType] = {
    "tensor(float)": pa.float32(),
    "tensor(double)": pa.float64(),
    "tensor(float16)": pa.float16(),
    "tensor(int8)": pa.int8(),
    "tensor(int16)": pa.int16(),
    "tensor(int32)": pa.int32(),
    "tensor(int64)": pa.int64(),
    "tensor(uint8)": pa.uint8(),
    "tensor(uint16)": pa.uint16(),
    "tensor(uint32)": pa.uint32(),
    "tensor(uint64)": pa.uint64(),
    "tensor(bool)": pa.bool_(),
    "tensor(string)": pa.string(),
}
# Arrow's own `to_pandas_dtype` would do, if it did not import pandas.
_DTYPES: dict[pa.DataType, np.dtype[Any]] = {
    pa.float16(): np.dtype(np.float16),
    pa.float32(): np.dtype(np.float32),
    pa.float64(): np.dtype(np.float64),
    pa.bool_(): np.dtype(np.bool_),
    pa.string(): np.dtype(np.object_),
    **{
        type_: np.dtype(str(type_))
        for type_ in (
            *(pa.int8(), pa.int16(), pa.int32(), pa.int64()),
            *(pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()),
        )
    },
}


def dtype_of(type_: pa.DataType) -> np.dtype[Any]:
    """The NumPy type of the elements of a tensor.

    Raises:
        KeyError: no tensor has elements of such a type.
    """
    return _DTYPES[type_]
