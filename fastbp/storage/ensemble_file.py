"""Ensembles in one file: safetensors, as a model's, with the tensors of model i under i.W1, i.b1, ..."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from fastbp.network.architecture import Architecture
from fastbp.network.network import Network
from fastbp.storage import atomic, model_file

Array = NDArray[Any]


def save(models: Sequence[Network], path: str | os.PathLike[str]) -> None:
    """ValueError for parameters that are not finite, TypeError for metadata that is not JSON."""
    tensors: dict[str, Array] = {}
    for i, model in enumerate(models):
        tensors |= {f"{i}.{name}": array for name, array in model_file.tensors_of(model).items()}
    described = [
        {"architecture": m.architecture.to_json(), "metadata": json.loads(model_file.metadata_as_json(m))}
        for m in models
    ]
    texts = {"format": model_file.ENSEMBLE_FORMAT, "ensemble": json.dumps({"models": described})}
    model_file.write(path, tensors, texts)


def load(
    path: str | os.PathLike[str],
) -> list[tuple[Architecture, dict[str, Any], tuple[str, ...] | None, Array]]:
    """Of each model what `model_file.load` returns.

    The file may come from anybody: ValueError, in one line, unless all of it fits together.
    """
    name = atomic.file_name(path)
    tensors, texts = model_file.read(path, "ensemble")
    if texts["format"] != model_file.ENSEMBLE_FORMAT:
        kind = model_file.FORMATS[texts["format"]]
        raise ValueError(f"{name} is a {kind}, expected an ensemble: fastbp.MLP.load reads it")
    try:
        models = model_file.json_object(texts, "ensemble")["models"]
        if not isinstance(models, list) or not models:
            raise ValueError("it has no list of models")
        parts: list[dict[str, Array]] = [{} for _ in models]
        for key, array in tensors.items():
            number, _, of_model = key.partition(".")
            if not number.isdecimal() or int(number) >= len(models):
                raise ValueError(f"there is no model for the array {key!r}")
            parts[int(number)][of_model] = array
        return [
            model_file.described(model["architecture"], dict(model["metadata"]), part)
            for model, part in zip(models, parts, strict=True)
        ]
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f"{name} does not describe an ensemble: {model_file.reason(error)}") from None
