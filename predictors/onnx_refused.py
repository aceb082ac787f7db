"""What a file is that ONNX Runtime refuses as a model, and what to do about it."""

import re

import onnxruntime as ort

# Enough to tell a file by.
HEAD_BYTES = 4096
_PICKLE = re.compile(rb"\x80[\x02-\x05]")
_EXPORT = "export it to ONNX (skl2onnx, onnxmltools, torch.onnx, tf2onnx)"
_OR_CLASS = "or score it with flavor python and a class that loads it"
# How files begin that people name in place of a model.
_BEGINNINGS: tuple[tuple[bytes, str, str], ...] = (
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras saves them", "export it with tf2onnx"),
    (b"version https://git-lfs", "a pointer of Git LFS", "fetch the file that it stands for with `git lfs pull`"),
    (b"\x1f\x8b", "compressed by gzip", "unpack it"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd", "unpack it"),
    (b"BZh", "compressed by bzip2", "unpack it"),
    (b"\xfd7zXZ\x00", "compressed by xz", "unpack it"),
    (b"tree\nversion=", "a text model of LightGBM", "convert it with onnxmltools.convert_lightgbm"),
    (b"CBM1", "a model of CatBoost", "save it with format='onnx'"),
    (b"GGUF", "a GGUF file of a language model", "export the model to ONNX"),
    (b"PAR1", "a Parquet file", "name the model; data belongs to input.path"),
    (b"\x93NUMPY", "an array of NumPy", _EXPORT),
    (b"<?xml", "an XML file (PMML?)", "export the model to ONNX"),
)


def refusal(path: str, head: bytes, reason: str) -> str:
    """One line: what is wrong with the file, and what to do.

    Args:
        path: of the file, for the message.
        head: the first `HEAD_BYTES` of it.
        reason: what the runtime said.
    """
    kind = _kind(head)
    if kind is not None:
        return f"model {path} is no ONNX model but {kind[0]}; {kind[1]}"
    reason = " ".join(reason.split())
    remedy = _remedy(reason)
    return f"model {path} is not a readable ONNX model: {remedy or reason}"


def _kind(head: bytes) -> tuple[str, str] | None:
    """What a file is by its first bytes, and what to do; None where they say nothing."""
    for beginning, what, remedy in _BEGINNINGS:
        if head.startswith(beginning):
            return what, remedy
    if not head:
        return "an empty file", "copy or export it again"
    if _PICKLE.match(head):
        return "a pickle (of scikit-learn, joblib or torch?)", f"{_EXPORT}, {_OR_CLASS}"
    if head.startswith(b"PK\x03\x04"):
        return _zip(head)
    if head[4:8] == b"TFL3":
        return "a model of TensorFlow Lite", "export it with tf2onnx --tflite"
    if head[8:10] == b'{"':
        return "a safetensors file, which holds weights alone", "export the model with torch.onnx.export"
    text = head.lstrip()[:512].lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "an HTML page", "the download gave a page (of a login or an error?) in place of the file; fetch it again"
    if text.startswith((b'{"', b"{l")):
        return "JSON (a model of XGBoost or LightGBM?)", "convert it with onnxmltools"
    return None


def _zip(head: bytes) -> tuple[str, str]:
    if b"/data.pkl" in head or b"/byteorder" in head or b"/version" in head:
        return "a checkpoint of PyTorch", f"export the model with torch.onnx.export, {_OR_CLASS}"
    if b"metadata.json" in head or b"config.json" in head:
        return "a model of Keras", "export it with tf2onnx"
    return "a zip archive", "unpack it, and name the .onnx file in it"


def _remedy(reason: str) -> str | None:
    """What the runtime means, where it says it at length; None where its own words are all there is."""
    version = ort.__version__
    found = re.search(r"Unsupported model IR version: (\d+), max supported IR version: (\d+)", reason)
    if found:
        return (
            f"its IR version is {found[1]}, and onnxruntime {version} reads up to {found[2]}; "
            f"save it with ir_version={found[2]}, or install a newer onnxruntime"
        )
    found = re.search(
        r"Opset (\d+) is under development.*?official support for domain (\S+) is till opset (\d+)", reason
    )
    if found:
        return (
            f"its opset of {found[2]} is {found[1]}, and onnxruntime {version} knows up to {found[3]}; "
            f"export it with target_opset={found[3]}, or install a newer onnxruntime"
        )
    found = re.search(r"No Op registered for (\S+) with domain_version of (\d+)", reason)
    if found:
        return (
            f"operator {found[1]} is not known in its opset {found[2]}; export it with the opset that has the "
            f"operator, or without it: operators of one's own are not loaded"
        )
    found = re.search(r"Fatal error: (\S+?)\(-?\d+\) is not a registered function/op", reason)
    if found is None:
        found = re.search(r"In Node, \(\"[^\"]*\", (\S+), .*?No opset import for domain", reason)
    if found:
        return (
            f"operator {found[1]} is one of its own, and those are not loaded; "
            f"export it with operators of ONNX, or score it with flavor python and a class that loads it"
        )
    found = re.search(r"Failed to construct locale with name: ?([\w.@-]+)", reason)
    if found:
        return (
            f"it wants the locale {found[1]}, which this machine has not; install it (on Debian: the package locales, "
            f"then localedef -i {found[1].partition('.')[0]} -f UTF-8 {found[1]})"
        )
    found = re.search(r"External data path does not exist: \"?([^\"]+)\"?", reason)
    if found:
        return f"its weights lie in {found[1]}, and that file is missing; copy it there, beside the model"
    if "External initializer" in reason and "size to read" in reason:
        what = reason.rpartition("External initializer:")[2].strip()
        return f"the file of its weights is shorter than the model says ({what}); copy it again"
    return None
