"""An ONNX file becomes a session of ONNX Runtime: within bounds, its maps taken off, and a word for what is none."""

import mmap
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

import onnxruntime as ort

from predictors.bounds import Bounds, LedElsewhere, at, lies_in
from predictors.errors import ModelNotLoadable
from predictors.onnx_refused import HEAD_BYTES, refusal
from predictors.weights import external_files
from predictors.zipmap import ZipMap, without_zipmaps

# Providers that are installed but not wanted: one calls a service, the other compiles an engine for minutes on load.
_UNWANTED_PROVIDERS = frozenset({"AzureExecutionProvider", "TensorrtExecutionProvider"})
# The runtime takes a file of such a name for an address in this process's memory (tensorprotoutils.h).
_IN_MEMORY = "*/_ORT_MEM_"


@dataclass
class Opened:
    """A model that is loaded.

    Args:
        session: runs it.
        outputs: the names of its outputs in the file, in that order.
        zipmaps: those that are maps in the file, and tensors in the session.
        weights: mapped as long as the session lives.
    """

    session: ort.InferenceSession
    outputs: tuple[str, ...]
    zipmaps: dict[str, ZipMap] = field(default_factory=dict)
    weights: list[mmap.mmap | bytes] = field(default_factory=list)


def open_model(path: str, within: Bounds | None) -> Opened:
    """Open a session.

    Args:
        within: where the model and the files of its weights have to lie, wherever their names lead; None: anywhere,
            though weights never lie outside of the model's folder.

    Raises:
        ModelNotLoadable: no such file, it lies out of bounds, or it is not an ONNX model that this runtime can run.
    """
    if not Path(path).is_file():
        raise ModelNotLoadable(f"model {path}: {_no_file(path)}")
    options = _options()
    model: str | bytes = os.fspath(path)
    try:
        weights: list[mmap.mmap | bytes] = []
        if within is not None:
            model, weights = _read(path, within, options)
        session = _session(model, options)
        opened = Opened(session, tuple(value.name for value in session.get_outputs()), weights=weights)
        if any(value.type.startswith("seq(map(") for value in session.get_outputs()):
            _take_off_maps(opened, path, model, options)
    except ModelNotLoadable:
        raise
    except Exception as error:
        raise ModelNotLoadable(refusal(path, _head(path, model), str(error))) from error
    return opened


def _no_file(path: str) -> str:
    """What is there in place of a file, and what to do."""
    if Path(path).is_dir():
        files = sorted(file.name for file in Path(path).glob("*.onnx"))
        return f"this is a folder; name the file in it{f', such as {files[0]}' if files else ''}"
    if re.fullmatch(r"[\w.]+(\.py)?:\w+", Path(path).name):
        return "there is no such file; if this is a class, score it with flavor python"
    return "there is no such file"


def _options() -> ort.SessionOptions:
    options = ort.SessionOptions()
    # Rows are spread over the pool's threads; a call that spreads itself, too, only makes them wait for each other.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Warnings of the graph optimizer say nothing that a person could act on; errors are raised.
    options.log_severity_level = 4
    return options


def _session(model: str | bytes, options: ort.SessionOptions) -> ort.InferenceSession:
    providers = [name for name in ort.get_available_providers() if name not in _UNWANTED_PROVIDERS]
    return ort.InferenceSession(model, options, providers=providers)


def _take_off_maps(opened: Opened, path: str, model: str | bytes, options: ort.SessionOptions) -> None:
    """Open the model again without the operators that make maps; those that stay are read map by map."""
    if isinstance(model, str):
        # Files of weights are looked for beside the model, which the runtime cannot tell of what is read.
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", _folder(path))
        model = Path(path).read_bytes()
    rewritten, zipmaps = without_zipmaps(model)
    if not zipmaps:
        return
    opened.session = _session(rewritten, options)
    opened.zipmaps = zipmaps


def _folder(path: str) -> str:
    return os.path.dirname(os.path.abspath(path))


def _head(path: str, model: str | bytes) -> bytes:
    """The first bytes of a model that was refused."""
    if isinstance(model, bytes):
        return model[:HEAD_BYTES]
    try:
        with open(path, "rb") as file:
            return file.read(HEAD_BYTES)
    except OSError:
        # The runtime's own words are enough.
        return b"?"


def _read(path: str, within: Bounds, options: ort.SessionOptions) -> tuple[bytes, list[mmap.mmap | bytes]]:
    """The model, read once, and the files of its weights, also in `options`: the runtime then opens none by its name.

    Raises:
        ModelNotLoadable: one of them lies out of bounds, or where the runtime would open it by its name.
        ValueError: this is no ONNX model.
    """
    try:
        with within.opened(path) as fd, open(fd, "rb", closefd=False) as file:
            folder = os.path.dirname(os.readlink(at(fd)))
            model = file.read()
        external = external_files(model)
        if external.others:
            raise ModelNotLoadable(
                f"model {path} keeps tensors of an inner graph in another file, {external.others[0]!r}, "
                "which a service does not read; save them within the model"
            )
        weights = [_mapped(path, within, folder, name) for name in external.initializers]
    except LedElsewhere as error:
        raise ModelNotLoadable(f"model {path}: {error.strerror}") from error
    if weights:
        sizes = [len(file) for file in weights]
        options.add_external_initializers_from_files_in_memory(list(external.initializers), weights, sizes)
    return model, weights


def _mapped(path: str, within: Bounds, folder: str, name: str) -> mmap.mmap | bytes:
    """A file of weights that lies below the model's folder.

    Raises:
        ModelNotLoadable: there is none; whether there is something elsewhere is not told.
    """
    try:
        if name.startswith(_IN_MEMORY):
            raise LedElsewhere
        with within.opened(os.path.join(folder, name)) as fd:
            if not lies_in(os.readlink(at(fd)), folder, below=True):
                raise LedElsewhere
            return mmap.mmap(fd, 0, prot=mmap.PROT_READ) if os.fstat(fd).st_size else b""
    except OSError as error:
        raise ModelNotLoadable(
            f"model {path} wants weights from {name!r}, which is no file in the model's folder"
        ) from error
