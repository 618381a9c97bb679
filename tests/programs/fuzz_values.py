"""Odd values of arguments, for fuzz.py: each has a label, and is made anew from a good value."""

import copy
import datetime
import decimal
import fractions
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np


class Hostile:
    """Fails whatever it is asked."""

    def __repr__(self) -> str:
        raise RuntimeError("no")

    def __array__(self, *arguments: Any, **options: Any) -> Any:
        raise RuntimeError("a tensor that requires grad")

    def __float__(self) -> float:
        raise RuntimeError("no number")

    def __deepcopy__(self, memo: Any) -> Any:
        return self


def misaligned(a: np.ndarray) -> np.ndarray:
    raw = np.zeros(a.nbytes + 1, np.uint8)[1:].view(a.dtype).reshape(a.shape)
    raw[...] = a
    return raw


def spoiled(value: float) -> Callable:
    def make(a: Any, rng: np.random.Generator) -> Any:
        a = np.array(a, np.float64)
        if a.size:
            a.reshape(-1)[int(rng.integers(a.size))] = value
        return a

    return make


def read_only(a: np.ndarray) -> np.ndarray:
    a = a.copy()
    a.flags.writeable = False
    return a


def bytes_as_booleans(a: np.ndarray) -> np.ndarray:
    return ((np.asarray(a) > 0).astype(np.uint8) * 255).view(bool)


def table(a: np.ndarray) -> Any:
    try:
        import pandas
    except ImportError:
        return np.asarray(a).tolist()
    return (
        pandas.DataFrame(a, columns=[f"c{i}" for i in range(a.shape[1])]) if a.ndim == 2 else pandas.Series(a)
    )


# Of anything: whatever somebody may pass by mistake.
ANYTHING: dict[str, Callable] = {
    "None": lambda v, rng: None,
    "text": lambda v, rng: "text",
    "bytes": lambda v, rng: b"bytes",
    "path": lambda v, rng: "/nonexistent/file.npy",
    "empty list": lambda v, rng: [],
    "dict": lambda v, rng: {"a": 1},
    "set": lambda v, rng: {1, 2},
    "object": lambda v, rng: object(),
    "class": lambda v, rng: int,
    "hostile": lambda v, rng: Hostile(),
    "function": lambda v, rng: len,
    "nan": lambda v, rng: float("nan"),
    "huge integer": lambda v, rng: 10**400,
    "complex": lambda v, rng: 1j,
    "list of None": lambda v, rng: [None],
    "ragged list": lambda v, rng: [[1.0, 2.0], [3.0]],
    "date": lambda v, rng: datetime.date(2024, 1, 1),
    "0-d": lambda v, rng: np.array(3.0),
    "empty array": lambda v, rng: np.zeros((0, 3)),
    "four dimensions": lambda v, rng: np.zeros((1, 2, 1, 2)),
}
ARRAYS: dict[str, Callable] = {
    "list": lambda a, rng: np.asarray(a).tolist(),
    "tuple of rows": lambda a, rng: tuple(np.asarray(a)),
    "float16": lambda a, rng: np.asarray(a).astype(np.float16),
    "float32": lambda a, rng: np.asarray(a).astype(np.float32),
    "float64": lambda a, rng: np.asarray(a).astype(np.float64),
    "longdouble": lambda a, rng: np.asarray(a).astype(np.longdouble),
    "int8": lambda a, rng: (2 * np.asarray(a)).astype(np.int8),
    "uint64": lambda a, rng: np.abs(np.asarray(a)).astype(np.uint64),
    "bool": lambda a, rng: np.asarray(a) > 0,
    "booleans of bytes": lambda a, rng: bytes_as_booleans(a),
    "big-endian": lambda a, rng: np.asarray(a).astype(np.asarray(a).dtype.newbyteorder(">")),
    "Fortran order": lambda a, rng: np.asfortranarray(a),
    "every second row": lambda a, rng: np.repeat(np.asarray(a), 2, axis=0)[::2],
    "backwards": lambda a, rng: np.asarray(a)[::-1],
    "misaligned": lambda a, rng: misaligned(np.asarray(a)),
    "read-only": lambda a, rng: read_only(np.asarray(a)),
    "broadcast": lambda a, rng: np.broadcast_to(np.asarray(a)[:1], np.shape(a)),
    "transposed": lambda a, rng: np.asarray(a).T,
    "one row less": lambda a, rng: np.asarray(a)[1:],
    "one row more": lambda a, rng: np.concatenate([a, np.asarray(a)[:1]]),
    "one column more": lambda a, rng: np.repeat(np.asarray(a), 2, axis=-1),
    "flat": lambda a, rng: np.ravel(a),
    "another dimension": lambda a, rng: np.asarray(a)[..., None],
    "complex numbers": lambda a, rng: np.asarray(a).astype(complex),
    "Python objects": lambda a, rng: np.asarray(a).astype(object),
    "strings": lambda a, rng: np.asarray(a).astype(str),
    "dates": lambda a, rng: np.zeros(np.shape(a), "M8[s]"),
    "masked": lambda a, rng: np.ma.masked_greater(a, 0),
    "records": lambda a, rng: np.zeros(np.shape(a), [("a", float), ("b", int)]),
    "table": lambda a, rng: table(np.asarray(a)),
    "NaN": spoiled(float("nan")),
    "infinity": spoiled(float("inf")),
    "1e300": spoiled(1e300),
    "1e30": spoiled(1e30),
    "-1e-320": spoiled(-1e-320),
    "-7": spoiled(-7),
    "0.5": spoiled(0.5),
} | ANYTHING
NUMBERS: dict[str, Callable] = {
    "0": lambda v, rng: 0,
    "-1": lambda v, rng: -1,
    "1": lambda v, rng: 1,
    "0.3": lambda v, rng: 0.3,
    "1e-320": lambda v, rng: 1e-320,
    "1e39": lambda v, rng: 1e39,
    "infinity": lambda v, rng: float("inf"),
    "True": lambda v, rng: True,
    "'0.1'": lambda v, rng: "0.1",
    "float32": lambda v, rng: np.float32(0.1),
    "int8": lambda v, rng: np.int8(1),
    "0-d 0.1": lambda v, rng: np.array(0.1),
    "one number": lambda v, rng: np.array([0.1]),
    "two numbers": lambda v, rng: [0.1, 0.2],
    "Fraction": lambda v, rng: fractions.Fraction(1, 10),
    "Decimal": lambda v, rng: decimal.Decimal("0.1"),
} | ANYTHING
COUNTS: dict[str, Callable] = {
    "2": lambda v, rng: 2,
    "2.0": lambda v, rng: 2.0,
    "2.5": lambda v, rng: 2.5,
    "10**30": lambda v, rng: 10**30,
    "int16": lambda v, rng: np.int16(3),
    "2**63": lambda v, rng: 2**63,
} | NUMBERS
NAMES: dict[str, Callable] = {
    name: (lambda v, rng, name=name: name)
    for name in (
        *("relu", "mish", "softmax", "SIGMOID", "mse", "huber(0.5)", "huber(-1)", "pinball(0.9)", "huber("),
        *("sum", "he", "float32", "f4", "float16", ">f8", "accuracy", "r2", "top_k(2)", "top_k(0)", "loss"),
        *("warn", ""),
    )
} | ANYTHING
OTHER_NUMBERS = {
    "NaN",
    "infinity",
    "1e300",
    "1e30",
    "-1e-320",
    "-7",
    "0.5",
    "int8",
    "uint64",
    "bool",
    "float16",
}
OTHER_NUMBERS |= {"booleans of bytes", "backwards", "broadcast", "table", "one row less", "one row more"}
TOO_LARGE = {"10**30", "2**63", "huge integer"}
KINDS: dict[str, dict[str, Callable]] = {
    "anything": ANYTHING
    | {
        "number": lambda v, rng: 3,
        "pair": lambda v, rng: (1, 2),
        "ones": lambda v, rng: np.ones((3, 2)),
    },
    "array": ARRAYS,
    "layout": {label: make for label, make in ARRAYS.items() if label not in OTHER_NUMBERS},
    "weights": ARRAYS
    | {
        "ones": lambda v, rng: np.ones(int(rng.integers(1, 20))),
        "balanced": lambda v, rng: "balanced",
        "by class": lambda v, rng: {0: 2.0, 1: 0.5},
        "negative": lambda v, rng: [-1.0, 1.0],
    },
    "list": ANYTHING
    | {
        "numbers": lambda v, rng: [0.5, 0.9],
        "array": lambda v, rng: np.ones(2),
        "too long": lambda v, rng: [0.1] * 5,
    },
    "number": NUMBERS,
    "count": COUNTS,
    "small count": {label: make for label, make in COUNTS.items() if label not in TOO_LARGE},
    "seed": COUNTS,
    "flag": NUMBERS | {"'no'": lambda v, rng: "no", "False": lambda v, rng: False},
    "name": NAMES,
    "sizes": COUNTS
    | {
        "array of sizes": lambda v, rng: np.array([3, 2]),
        "floats": lambda v, rng: [3.0, 2.0],
        "one size": lambda v, rng: [3],
        "a zero": lambda v, rng: [3, 0, 2],
        "no hidden layer": lambda v, rng: (3, 1),
        "array of two dimensions": lambda v, rng: np.ones((2, 2), int),
    },
}


def odd(kind: str, good: Any, rng: np.random.Generator) -> tuple[str, Any]:
    """A label and a value. Where a good value is no array, kinds of arrays are made from one."""
    makers = KINDS[kind]
    label = str(rng.choice(list(makers)))
    if kind in ("array", "weights") and good is None:
        good = np.abs(rng.standard_normal(int(rng.integers(1, 20))))
    with np.errstate(all="ignore"):
        return label, makers[label](good, rng)


def copied(value: Any) -> Any:
    """An argument of its own for a call; memory layout and marks stay."""
    if isinstance(value, list):
        return [copied(item) for item in value]
    if type(value) is not np.ndarray:
        return copy.deepcopy(value)
    if not value.flags.writeable or not value.size:
        return value
    if not value.flags.aligned:
        return misaligned(value)
    if value.flags.forc:
        return value.copy(order="K")
    if value.strides[0] < 0:
        return value[::-1].copy()[::-1]
    return np.repeat(value, 2, axis=0)[::2]


def frozen(value: Any) -> Any:
    """Something that is equal as long as the value has not changed."""
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return value.tobytes()
    try:
        return pickle.dumps(value)
    except Exception:
        return None
