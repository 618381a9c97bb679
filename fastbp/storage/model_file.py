"""Model files: safetensors, with the architecture as JSON in the metadata.

safetensors is a length, a JSON header and raw numbers, so reading one runs no code. A checksum over all that
we wrote shows alterations that would still parse.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp.network.architecture import Architecture
from fastbp.network.network import Network
from fastbp.storage import atomic

Array = NDArray[Any]

FORMAT = "fastbp-mlp-1"
CHECKPOINT_FORMAT = "fastbp-checkpoint-1"
ENSEMBLE_FORMAT = "fastbp-ensemble-1"
FORMATS = {FORMAT: "model", CHECKPOINT_FORMAT: "checkpoint", ENSEMBLE_FORMAT: "ensemble"}
# Options of MLP that older files do not mention, and what they were then.
LATER_OPTIONS = {"layer_norm": False, "l2": 0.0, "precision": None}
# Where a table's column names lie in the metadata of a file; not in the model's own, which are the user's.
FEATURE_NAMES = "fastbp.feature_names"


def _checksum(tensors: Mapping[str, Array], texts: Mapping[str, str]) -> str:
    digest = hashlib.sha256()
    for key in sorted(texts):
        digest.update(f"{key}={len(texts[key])}:{texts[key]};".encode())
    for key in sorted(tensors):
        digest.update(f"{key}:{tensors[key].dtype}{tensors[key].shape};".encode())
        digest.update(np.ascontiguousarray(tensors[key]).tobytes())
    return digest.hexdigest()


def save(model: Network, path: str | os.PathLike[str]) -> None:
    """ValueError for parameters that are not finite: no such file could be loaded."""
    tensors = tensors_of(model)
    texts = {
        "format": FORMAT,
        "architecture": json.dumps(model.architecture.to_json()),
        "metadata": metadata_as_json(model),
    }
    write(path, tensors, texts)


def tensors_of(model: Network) -> dict[str, Array]:
    """Copies of all parameters by their names. ValueError for parameters that are not finite."""
    model.parameters.adopt()
    if not np.isfinite(model.parameters.flat).all():
        raise ValueError("weights, biases or gains hold NaN or infinity: such a model is not saved")
    return {name: array.copy() for name, array in model.parameters.named().items()}


def metadata_as_json(model: Network) -> str:
    """TypeError for metadata that could not be read back."""
    if not isinstance(model.metadata, dict):
        raise TypeError(f"metadata must be a dict, got {type(model.metadata).__name__}")
    names = {} if model.feature_names is None else {FEATURE_NAMES: list(model.feature_names)}
    try:
        return json.dumps(model.metadata | names)
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(f"metadata cannot be saved, it must be JSON: {error}") from None


def write(path: str | os.PathLike[str], tensors: Mapping[str, Array], texts: Mapping[str, str]) -> None:
    """A safetensors file with a checksum; at `path` is either the old or the new file, whatever happens."""
    from safetensors.numpy import save as serialise

    atomic.write(path, serialise(dict(tensors), {**texts, "sha256": _checksum(tensors, texts)}))


def read(path: str | os.PathLike[str], kind: str) -> tuple[dict[str, Array], dict[str, str]]:
    """Tensors and texts of a file that `write` wrote. ValueError if it is damaged, or of another kind."""
    from safetensors import SafetensorError, safe_open

    name = atomic.file_name(path)
    atomic.check_regular(name)  # to open a pipe would be to wait for whoever writes into it
    with open(name, "rb"):  # a missing or unreadable file is an OSError with its name, as elsewhere in Python
        pass
    try:
        with safe_open(name, framework="np") as file:
            texts = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a dict)
    except (SafetensorError, ValueError, TypeError, AttributeError) as error:
        article = "an" if kind == "ensemble" else "a"
        raise ValueError(f"{name} is not {article} {kind} file, or is truncated: {error}") from None
    if texts.get("format") not in FORMATS:
        raise ValueError(f"{name} is a safetensors file, but not a {kind} that fastbp saved")
    stated = texts.pop("sha256", None)
    if stated != _checksum(tensors, texts):
        raise ValueError(f"{name} has been altered or damaged: its checksum does not fit its content")
    return tensors, texts


def load(
    path: str | os.PathLike[str],
) -> tuple[Architecture, dict[str, Any], tuple[str, ...] | None, Array]:
    """Architecture, metadata, feature names and flat parameters of what `save` wrote, or of a checkpoint.

    The file may come from anybody: ValueError, in one line, unless all of it fits together.
    """
    name = atomic.file_name(path)
    tensors, texts = read(path, "model")
    if texts["format"] == ENSEMBLE_FORMAT:
        raise ValueError(
            f"{name} is an ensemble of models, expected one model: fastbp.Ensemble.load reads it"
        )
    try:
        if texts["format"] == CHECKPOINT_FORMAT:
            options = json_object(texts, "settings")["model"]
            stored = {"": tensors.get("result", tensors["parameters"])}
        else:
            options, stored = json_object(texts, "architecture"), tensors
        return described(options, json_object(texts, "metadata"), stored)
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f"{name} does not describe a model: {reason(error)}") from None


def described(
    options: dict[str, Any], metadata: dict[str, Any], stored: Mapping[str, Array]
) -> tuple[Architecture, dict[str, Any], tuple[str, ...] | None, Array]:
    """As `load`, of what a file says of one model. Any of several errors if it does not fit together."""
    architecture = _architecture({**LATER_OPTIONS, **options}, stored)
    feature_names = _feature_names(metadata, architecture)
    return architecture, metadata, feature_names, _parameters(architecture, stored)


def _feature_names(metadata: dict[str, Any], architecture: Architecture) -> tuple[str, ...] | None:
    """The columns of the table trained on, taken out of the metadata; None where there was none."""
    names = metadata.pop(FEATURE_NAMES, None)
    if names is None:
        return None
    are_names = isinstance(names, list) and all(isinstance(name, str) for name in names)
    if not are_names or len(names) != architecture.inputs:
        raise ValueError(f"{FEATURE_NAMES} is not a list of a name for each input")
    return tuple(names)


def _parameters(architecture: Architecture, stored: Mapping[str, Array]) -> Array:
    """All of them in one flat array. ValueError unless they are what the architecture has."""
    arrays = architecture.arrays if "" not in stored else {"": (architecture.n_parameters,)}
    if {key: array.shape for key, array in stored.items()} != arrays:
        raise ValueError(f"layer_sizes {list(architecture.layer_sizes)} do not fit the arrays in the file")
    if any(array.dtype != architecture.dtype for array in stored.values()):
        raise ValueError(f"dtype {architecture.dtype} is not that of the arrays in the file")
    parameters = np.concatenate([stored[key].reshape(-1) for key in arrays])
    if not np.isfinite(parameters).all():
        raise ValueError("its parameters hold NaN or infinity")
    return parameters


def _architecture(options: dict[str, Any], stored: Mapping[str, Array]) -> Architecture:
    """What the file says that it is; its constructor refuses what there cannot be."""
    numbers = sum(array.size for array in stored.values())
    sizes = options["layer_sizes"]
    # A width that no array of the file can have would cost memory before it is found to be wrong.
    if not isinstance(sizes, list) or any(isinstance(size, int) and size > numbers for size in sizes):
        raise ValueError(f"layer_sizes {sizes} do not fit the arrays in the file")
    if options["dtype"] not in ("float32", "float64"):
        raise TypeError(f"dtype is {options['dtype']!r}, expected 'float32' or 'float64'")
    return Architecture.from_json(options)


def json_object(texts: Mapping[str, str], key: str) -> dict[str, Any]:
    """The JSON object in one of a file's texts. KeyError or ValueError if there is none."""
    try:
        found = json.loads(texts[key])
    except RecursionError:
        raise ValueError(f"{key} is nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError(f"{key} is not a JSON object")
    return found


def reason(error: Exception) -> str:
    """In one line, and not a long one: the words may be the file's."""
    text = f"{error} is missing" if isinstance(error, KeyError) else " ".join(str(error).split())
    return text if len(text) <= 300 else text[:297] + "..."
