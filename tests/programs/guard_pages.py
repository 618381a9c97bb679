"""Calls of every entry in memory that ends at a page without access, or begins behind one.

    python guard_pages.py {after,before} CASES SEED

Whoever reads or writes a byte outside an array dies with a segmentation fault; the last line printed says in
which case. It is NumPy that allocates this way while a case runs, so it is arguments, results and whatever is
made in between: copies, gradients, optimizer state, the engine's own memory. Each case is done in ordinary
memory, too, and must give the same bits. At the end counts are printed, as `name=count`.
"""

import contextlib
import ctypes
import faulthandler
import mmap
import os
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import fastbp
from fastbp import kernels
from fastbp.engine import binding, memory
from fastbp.engine.compile.arrays import capsule_pointer

memory.PAIRS_FROM = 0  # all networks here are small
PAGE = mmap.PAGESIZE
EDGES = (
    1,
    2,
    3,
    4,
    5,
    6,
    7,
    8,
    9,
    12,
    13,
    14,
    15,
    16,
    17,
    24,
    31,
    32,
    33,
    47,
    48,
    49,
    63,
    64,
    65,
    70,
    96,
    100,
)

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
PROT_NONE = 0


class Allocator(ctypes.Structure):
    """PyDataMemAllocator of NumPy's C interface (NEP 49)."""

    MALLOC = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
    CALLOC = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t)
    REALLOC = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
    FREE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
    _fields_ = [
        ("ctx", ctypes.c_void_p),
        ("malloc", MALLOC),
        ("calloc", CALLOC),
        ("realloc", REALLOC),
        ("free", FREE),
    ]


class Handler(ctypes.Structure):
    """PyDataMem_Handler."""

    _fields_ = [("name", ctypes.c_char * 127), ("version", ctypes.c_uint8), ("allocator", Allocator)]


class Guarded:
    """Memory between two pages without access, of which one is adjacent to the first or last byte."""

    def __init__(self, side: str) -> None:
        self.side, self.allocations = side, 0
        self.mapped: dict[
            int, tuple[int, int]
        ] = {}  # by the address given out: the mapping's address and size
        self.sizes: dict[int, int] = {}
        self.kept = [
            Allocator.MALLOC(lambda _, size: self.new(size)),
            Allocator.CALLOC(lambda _, n, size: self.new(n * size)),
            Allocator.REALLOC(lambda _, old, size: self.resized(old, size)),
            Allocator.FREE(lambda _, old, size: self.free(old)),
        ]
        self.handler = Handler(b"guarded", 1, Allocator(None, *self.kept))

    def new(self, size: int) -> int:
        self.allocations += 1
        room = max(1, -(-size // PAGE)) * PAGE
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        base = libc.mmap(None, room + 2 * PAGE, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0)
        assert base != ctypes.c_void_p(-1).value, "no memory"
        for guard in (base, base + PAGE + room):
            assert libc.mprotect(guard, PAGE, PROT_NONE) == 0
        address = base + PAGE + (room - size if self.side == "after" else 0)
        while address in self.mapped:  # of nothing
            address -= 1
        self.mapped[address], self.sizes[address] = (base, room + 2 * PAGE), size
        return address

    def free(self, address: int | None) -> None:
        if address is not None:
            libc.munmap(*self.mapped.pop(address))
            del self.sizes[address]

    def resized(self, old: int | None, size: int) -> int:
        address = self.new(size)
        if old is not None:
            ctypes.memmove(address, old, min(size, self.sizes[old]))
            self.free(old)
        return address

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """NumPy allocates here."""
        before = _set_handler(_capsule(ctypes.addressof(self.handler), b"mem_handler", None))
        try:
            yield
        finally:
            _set_handler(before)


def _numpy_api(index: int) -> int:
    """The address of a function of NumPy's C interface."""
    table = capsule_pointer(np._core._multiarray_umath._ARRAY_API, None)
    return ctypes.cast(table, ctypes.POINTER(ctypes.c_void_p))[index]


_set_handler = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object)(_numpy_api(304))  # PyDataMem_SetHandler
_capsule = ctypes.pythonapi.PyCapsule_New
_capsule.restype, _capsule.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]

# ---- cases: each takes random numbers and returns arrays ---------------------------------------------------


class Draw:
    """Random choices of a case, the same in both kinds of memory."""

    def __init__(self, seed: str) -> None:
        self.random, self.numpy = (
            random.Random(seed),
            np.random.default_rng(random.Random(seed).getrandbits(32)),
        )
        self.dtype = self.random.choice(["float32", "float64"])

    def edge(self) -> int:
        return self.random.choice(EDGES)

    def outputs(self) -> int:
        return self.random.choice((*range(1, 15), 16, 24, 32, 33, 48))

    def array(self, *shape: int) -> np.ndarray:
        return (self.numpy.random(shape) - 0.5).astype(self.dtype)

    def layout(self, x: np.ndarray, scale: int = 4) -> np.ndarray:
        """The same numbers as other arrays have them; in another dtype whole ones, `scale` times as large."""
        kind = self.random.choice(["C", "C", "C", "F", "strided", "reversed", "other dtype", "file"])
        if kind == "F":
            return np.asfortranarray(x)
        if kind == "strided":  # it begins and ends with a number that belongs to it
            flat = np.empty(2 * x.size - 1, x.dtype)
            item = x.itemsize
            strides = [2 * item * int(np.prod(x.shape[k + 1 :])) for k in range(x.ndim)]
            result = np.lib.stride_tricks.as_strided(flat, x.shape, strides)
            result[...] = x
            return result
        if kind == "reversed":
            return x[::-1].copy()[::-1]
        if kind == "other dtype":
            other = self.random.choice(["float16", "float64", "uint8", "int32", "bool", ">f4"])
            return (x * scale).astype(np.int8).astype(other)
        return x.view(np.memmap) if kind == "file" else x


def two_layer_shape(draw: Draw) -> tuple[int, int, int, int]:
    """Batch, inputs, hidden, outputs; some so large that two threads work, or that rows are copied first."""
    if draw.random.random() < 0.08:
        hidden, outputs = draw.random.choice(((33, 1024), (128, 1024), (288, 7), (512, 1024), (1024, 33)))
        return draw.random.choice((64, 97)), draw.random.choice((64, 784, 1024)), hidden, outputs
    return draw.edge(), draw.edge(), draw.edge(), draw.outputs()


def parameters(draw: Draw, inputs: int, hidden: int, outputs: int) -> list[np.ndarray]:
    shapes = (inputs, hidden), (hidden,), (hidden, outputs), (outputs,)
    return [draw.array(*shape) for shape in shapes]


def forward(draw: Draw) -> list[Any]:
    batch, *sizes = two_layer_shape(draw)
    X, params = draw.layout(draw.array(batch, sizes[0])), parameters(draw, *sizes)
    return [*fastbp.forward(X, *params, check_finite=draw.random.random() < 0.7)]


def backward(draw: Draw) -> list[Any]:
    batch, *sizes = two_layer_shape(draw)
    X, Y, params = draw.array(batch, sizes[0]), draw.array(batch, sizes[2]), parameters(draw, *sizes)
    z1, a1, _, y_pred = fastbp.forward(X, *params)
    return [*fastbp.backward(draw.layout(X), draw.layout(Y), z1, a1, y_pred, params[2])]


def train_step(draw: Draw) -> list[Any]:
    batch, *sizes = two_layer_shape(draw)
    X, Y, params = draw.array(batch, sizes[0]), draw.array(batch, sizes[2]), parameters(draw, *sizes)
    loss = fastbp.train_step(draw.layout(X), draw.layout(Y), *params, 0.1)
    return [loss, *params]


def sgd_update(draw: Draw) -> list[Any]:
    params = parameters(draw, draw.edge(), draw.edge(), draw.outputs())
    fastbp.sgd_update(params, [draw.layout(draw.array(*p.shape)) for p in params], 0.1)
    return params


def new_model(draw: Draw) -> fastbp.MLP:
    sizes = [draw.edge(), *(draw.edge() for _ in range(draw.random.choice((0, 1, 1, 2)))), draw.outputs()]
    output, loss = draw.random.choice([("sigmoid", "mse"), ("softmax", "categorical_crossentropy")])
    if output == "softmax":
        sizes[-1] = max(2, sizes[-1])
    deep = len(sizes) > 2
    return fastbp.MLP(
        sizes,
        output=output,
        loss=loss,
        dtype=draw.dtype,
        seed=1,
        hidden=draw.random.choice(["relu", "sigmoid"]),
        layer_norm=deep and draw.random.random() < 0.3,
        dropout=draw.random.choice([0.0, 0.0, 0.3]) if deep else 0.0,
        input_noise=draw.random.choice([0.0, 0.0, 0.1]),
        threads=draw.random.choice([1, 2]),
        precision=draw.random.choice([None, None, "bfloat16"]) if draw.dtype == "float32" else None,
    )


def targets(draw: Draw, model: fastbp.MLP, rows: int) -> np.ndarray:
    """One-hot rows, or the numbers of classes."""
    outputs = model.layer_sizes[-1]
    labels = draw.numpy.integers(0, outputs, rows)
    if model.architecture.output == "softmax" and draw.random.random() < 0.3:
        return labels.astype(draw.random.choice(["int64", "uint8"]))
    return draw.layout(np.eye(outputs, dtype=draw.dtype)[labels], scale=1)


def optimizer(draw: Draw) -> Any:
    options = draw.random.choice([{}, {}, {"clip_norm": 0.1}])
    return draw.random.choice([fastbp.SGD, fastbp.Adam])(0.1, **options)


def model_calls(draw: Draw) -> list[Any]:
    model, rows = new_model(draw), draw.edge()
    X, Y = draw.layout(draw.array(rows, model.layer_sizes[0])), targets(draw, model, rows)
    trace = model.forward(X)
    gradients = model.backward(trace, Y)
    loss = model.train_step(X, Y, optimizer(draw))
    return [*trace.z, *trace.a, *gradients.weights, *gradients.biases, loss, model.loss(X, Y), *all_of(model)]


def predict(draw: Draw) -> list[Any]:
    model, rows = new_model(draw), draw.random.choice((1, 2, 3, 4, 5, 6, 7, 8, 9, 64))
    X = draw.layout(draw.array(rows, model.layer_sizes[0]))
    return [model.predict(X), model.predict(X, check_finite=False)]


def all_of(model: fastbp.MLP) -> list[np.ndarray]:
    return [*model.weights, *model.biases, *model.gains]


def fit(draw: Draw) -> list[Any]:
    model, rows = new_model(draw), draw.edge() + draw.edge()
    X = draw.layout(draw.array(rows, model.layer_sizes[0]))
    options: dict[str, Any] = {"epochs": 2, "batch_size": draw.edge(), "progress": False}
    options["shuffle"] = draw.random.random() < 0.5
    if draw.random.random() < 0.3:
        options["sample_weight"] = draw.layout(draw.numpy.random(rows) + 0.1)
    if draw.random.random() < 0.3:
        n = draw.edge()
        validation = draw.layout(draw.array(n, model.layer_sizes[0])), targets(draw, model, n)
        options["validation_data"] = validation
    if draw.random.random() < 0.2:
        options["accumulate"] = 2
    binding.NEAR_DATA = draw.random.choice([0, 2 << 20])  # with 0, batches are gathered as of large data
    history = model.fit(X, targets(draw, model, rows), optimizer=optimizer(draw), **options)
    return [history.loss, *all_of(model), model.predict(X)]


def scaled_fit(draw: Draw) -> list[Any]:
    """Bytes, inputs with a scale and an offset, batches from an iterable."""
    inputs, outputs, rows = draw.edge(), draw.outputs(), draw.edge()
    model = fastbp.MLP(
        [inputs, 8, outputs],
        dtype=draw.dtype,
        seed=1,
        input_scale=draw.array(inputs) + 1,
        input_offset=draw.array(inputs),
    )
    X = draw.numpy.integers(0, 256, (rows, inputs)).astype(
        draw.random.choice(["uint8", "float32", ">i2", "float16"])
    )
    Y = draw.array(rows, outputs)
    model.fit(X, Y, epochs=1, batch_size=draw.edge(), optimizer=fastbp.SGD(0.1), progress=False)
    batches = [(X[i : i + 5], Y[i : i + 5]) for i in range(0, rows, 5)]
    model.fit(batches, epochs=1, optimizer=fastbp.SGD(0.1), progress=False)
    return [*all_of(model), model.predict(X), model.loss(X, Y)]


def files(draw: Draw) -> list[Any]:
    """A model file, and training that goes on from a checkpoint."""
    model, rows = new_model(draw), draw.edge()
    X, Y = draw.layout(draw.array(rows, model.layer_sizes[0])), targets(draw, model, rows)
    with tempfile.TemporaryDirectory() as folder:
        path, checkpoint = Path(folder, "m.safetensors"), Path(folder, "c.safetensors")
        for epochs in (1, 2):
            options = {"epochs": epochs, "batch_size": 8, "progress": False}
            model.fit(X, Y, optimizer=fastbp.Adam(0.1), checkpoint=checkpoint, **options)
            model.save(path)
            model = fastbp.MLP.load(path)
    return all_of(model)


def products(draw: Draw) -> list[Any]:
    rows, depth, columns = draw.edge(), draw.edge(), draw.edge()
    A, B = draw.array(rows, depth), draw.array(depth, columns)
    At, Bt, b = np.ascontiguousarray(A.T), np.ascontiguousarray(B.T), draw.array(columns)
    out = [np.empty((rows, columns), draw.dtype) for _ in range(4)]  # (kernels' own results have no guards)
    kernels.matmul(A, B, out[0])
    kernels.matmul_bias(A, B, b, out[1])
    kernels.matmul_at_b(At, B, out[2])
    kernels.matmul_a_bt(A, Bt, out[3])
    return out


# How many of a hundred cases are calls of each.
ENTRIES: dict[Callable[[Draw], list[Any]], int] = {
    forward: 20,
    backward: 14,
    train_step: 20,
    products: 10,
    sgd_update: 2,
    model_calls: 8,
    predict: 10,
    fit: 10,
    scaled_fit: 4,
    files: 2,
}


def outcome(entry: Callable[[Draw], list[Any]], name: str) -> list[bytes] | str:
    """The case's results, or the error."""
    try:
        return [np.asarray(result).tobytes() for result in entry(Draw(name))]
    except (TypeError, ValueError, FloatingPointError) as error:
        return f"{type(error).__name__}: {error}"


def main(side: str, cases: int, seed: int) -> None:
    faulthandler.enable()
    guarded = Guarded(side)
    counts = dict.fromkeys([*(entry.__name__ for entry in ENTRIES), "refused"], 0)
    choose = random.Random(seed)
    for number in range(cases):
        entry = choose.choices(list(ENTRIES), list(ENTRIES.values()))[0]
        name = f"{entry.__name__} {seed}-{number}"
        print(name, flush=True)
        expected = outcome(entry, name)
        with guarded():
            found = outcome(entry, name)
        assert found == expected, f"{name}: other results"
        if isinstance(found, str):
            print(found)
        counts["refused" if isinstance(found, str) else entry.__name__] += 1
    print(*(f"{name}={count}" for name, count in counts.items()), f"allocations={guarded.allocations}")
    sys.stdout.flush()
    os._exit(0)  # arrays that are left are not given back to a handler that is gone


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
