"""Model files: safetensors, with the architecture as JSON in the metadata.

safetensors is a length, a JSON header and raw numbers, so reading one runs no code. A checksum over all that
we wrote shows alterations that would still parse.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastbp.network import layout

if TYPE_CHECKING:
    from fastbp.network.base import BaseMLP

Array = NDArray[Any]

FORMAT = "fastbp-mlp-1"
CHECKPOINT_FORMAT = "fastbp-checkpoint-1"
# Options of MLP that older files do not mention, and what they were then.
LATER_OPTIONS = {"layer_norm": False}


def _checksum(tensors: Mapping[str, Array], texts: Mapping[str, str]) -> str:
    digest = hashlib.sha256()
    for key in sorted(texts):
        digest.update(f"{key}={len(texts[key])}:{texts[key]};".encode())
    for key in sorted(tensors):
        digest.update(f"{key}:{tensors[key].dtype}{tensors[key].shape};".encode())
        digest.update(np.ascontiguousarray(tensors[key]).tobytes())
    return digest.hexdigest()


def save(model: BaseMLP, path: str | os.PathLike[str]) -> None:
    model._adopt_parameters()
    views = layout.views(model._parameters, model._shapes_by_name)
    tensors = {name: array.copy() for name, array in views.items()}
    texts = {
        "format": FORMAT,
        "architecture": json.dumps(model._architecture()),
        "metadata": metadata_as_json(model),
    }
    write(path, tensors, texts)


def metadata_as_json(model: BaseMLP) -> str:
    try:
        return json.dumps(model.metadata)
    except (TypeError, ValueError) as error:
        raise TypeError(f"metadata cannot be saved, it must be JSON: {error}") from None


def write(path: str | os.PathLike[str], tensors: Mapping[str, Array], texts: Mapping[str, str]) -> None:
    """A safetensors file with a checksum; at `path` is either the old or the new file, whatever happens."""
    from safetensors.numpy import save as serialise

    data = serialise(dict(tensors), {**texts, "sha256": _checksum(tensors, texts)})
    _write_atomically(Path(path), data)


def _write_atomically(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    _sync_directory(path.parent)


def _sync_directory(directory: Path) -> None:
    """Bring the renaming to the disk, where the system has a way to (Windows has none)."""
    with contextlib.suppress(OSError):
        opened = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def remove_leftovers(path: Path) -> None:
    """Delete what processes that were killed while they wrote `path` have left behind."""
    for temporary in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        process = temporary.name.removeprefix(f".{path.name}.").removesuffix(".tmp")
        if process.isdigit() and not _is_running(int(process)):
            with contextlib.suppress(OSError):
                temporary.unlink()


def _is_running(process: int) -> bool:
    if os.name == "nt":  # there is no asking
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # it is somebody else's
    return True


def read(path: str | os.PathLike[str], kind: str) -> tuple[dict[str, Array], dict[str, str]]:
    """Tensors and texts of a file that `write` wrote. ValueError if it is damaged, or of another kind."""
    from safetensors import SafetensorError, safe_open

    name = os.fspath(path)
    with open(path, "rb"):  # a missing or unreadable file is an OSError with its name, as elsewhere in Python
        pass
    try:
        with safe_open(name, framework="np") as file:
            texts = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a dict)
    except (SafetensorError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{name} is not a {kind} file, or is truncated: {error}") from None
    if texts.get("format") not in (FORMAT, CHECKPOINT_FORMAT):
        raise ValueError(f"{name} is a safetensors file, but not a {kind} that fastbp saved")
    stated = texts.pop("sha256", None)
    if stated != _checksum(tensors, texts):
        raise ValueError(f"{name} has been altered or damaged: its checksum does not fit its content")
    return tensors, texts


def load(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Any], Array]:
    """Architecture, metadata and flat parameters of a file that `save` wrote, or of a checkpoint."""
    name = os.fspath(path)
    tensors, texts = read(path, "model")
    if texts["format"] == CHECKPOINT_FORMAT:
        return _model_of_checkpoint(name, tensors, texts)
    try:
        architecture = {**LATER_OPTIONS, **json.loads(texts["architecture"])}
        metadata = json.loads(texts["metadata"])
        sizes, dtype = architecture["layer_sizes"], np.dtype(architecture["dtype"])
        expected = layout.shapes(sizes, architecture["layer_norm"])
        if {key: t.shape for key, t in tensors.items()} != expected or not isinstance(metadata, dict):
            raise ValueError(f"layer_sizes {sizes} do not fit the arrays in the file")
        if any(t.dtype != dtype for t in tensors.values()):
            raise ValueError(f"the arrays are not all {dtype}")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{name} does not describe a model: {error}") from None
    return architecture, metadata, np.concatenate([tensors[key].reshape(-1) for key in expected])


def _model_of_checkpoint(
    name: str, tensors: Mapping[str, Array], texts: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, Any], Array]:
    try:
        architecture = {**LATER_OPTIONS, **json.loads(texts["settings"])["model"]}
        metadata = json.loads(texts["metadata"])
        parameters = tensors.get("result", tensors["parameters"])
        size = layout.size(layout.shapes(architecture["layer_sizes"], architecture["layer_norm"]))
        if parameters.shape != (size,) or parameters.dtype != np.dtype(architecture["dtype"]):
            raise ValueError(f"layer_sizes {architecture['layer_sizes']} do not fit the arrays in the file")
        if not isinstance(metadata, dict):
            raise ValueError("metadata is not a dict")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{name} does not describe a model: {error}") from None
    return architecture, metadata, parameters
