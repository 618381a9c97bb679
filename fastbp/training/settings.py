"""What a call of `fit` was given, as JSON: equal for equal calls, also in another process."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp.inputs.sources import Labels, Rows, is_on_disk
from fastbp.inputs.sparse import Sparse

Array = NDArray[Any]

# Bytes of the data that are looked at to tell them from others, and rows where they are on a disk.
DIGESTED_BYTES, DIGESTED_ROWS_ON_DISK = 1 << 24, 256
_ABSENT = object()


def described(value: Any) -> Any:
    """A setting as JSON: equal for equal settings, also in another process."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else str(float(value))
    if isinstance(value, Mapping):
        return {str(key): described(item) for key, item in value.items()}
    if isinstance(value, (np.ndarray, Rows)):
        return of_data(value)
    if isinstance(value, (list, tuple)):
        return [described(item) for item in value]
    name = getattr(value, "__qualname__", None)
    if name is not None:  # a function or a class
        return f"{getattr(value, '__module__', '')}.{name}"
    names = [name for name in vars(value) if not name.startswith("_")]
    if dataclasses.is_dataclass(value):  # without what it learns
        names = [field.name for field in dataclasses.fields(value) if field.init]
    public = {name: described(getattr(value, name)) for name in names}
    return {"": type(value).__name__, **public}


def of_data(data: Array | Rows) -> dict[str, Any]:
    """Shape, dtype and a digest of values: of all, or of rows spread evenly over a large array."""
    stored = data.values if isinstance(data, Rows) and not isinstance(data, (Labels, Sparse)) else data
    row_bytes = max(1, stored.nbytes // max(1, len(stored)))
    most = max(1, DIGESTED_BYTES // row_bytes)
    if is_on_disk(stored) and stored.nbytes > DIGESTED_BYTES:
        most = min(most, DIGESTED_ROWS_ON_DISK)
    looked_at: Any = slice(None)
    if len(stored) > most:
        looked_at = np.linspace(0, len(stored) - 1, most).astype(np.int64)
    values = np.ascontiguousarray(stored[looked_at], stored.dtype.newbyteorder("="))
    digest = hashlib.sha256(values.tobytes()).hexdigest()[:16]
    return {"shape": list(stored.shape), "dtype": str(values.dtype), "values": f"digest {digest}"}


def differences(
    saved: Any, given: Any, name: str = "", of: tuple[str, str] = ("in the checkpoint", "given")
) -> Iterator[str]:
    """One line for each setting that is not the same; `of` says whose they are."""
    if isinstance(saved, dict) and isinstance(given, dict) and saved.get("") == given.get(""):
        for key in {**saved, **given}:
            inner = f"{name}.{key}" if name else key
            yield from differences(saved.get(key, _ABSENT), given.get(key, _ABSENT), inner, of)
    elif saved is not given and saved != given:
        yield f"{name}: {_shown(saved)} {of[0]}, {_shown(given)} {of[1]}"


def _shown(value: Any) -> str:
    if value is _ABSENT:
        return "nothing"
    if isinstance(value, dict):
        options = ", ".join(f"{k}={_shown(v)}" for k, v in value.items() if k)
        return f"{value.get('', '')}({options})"
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
