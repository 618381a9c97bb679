"""Sparse matrices as X: the same bits as the dense array, and never all of it at once."""

import tracemalloc

import numpy as np
import pytest

import fastbp
import fastbp.reference

scipy_sparse = pytest.importorskip("scipy.sparse")
RNG = np.random.default_rng(4)
ROWS, COLUMNS = 45, 37


def matrix(dtype="float64", density=0.1):
    dense = RNG.standard_normal((ROWS, COLUMNS)) * (RNG.random((ROWS, COLUMNS)) < density)
    return (10 * dense).astype(dtype)


Y = RNG.random((ROWS, 3))
KINDS = [
    lambda dense: scipy_sparse.csr_matrix(dense),
    lambda dense: scipy_sparse.csr_array(dense),
    lambda dense: scipy_sparse.coo_array(dense),
    lambda dense: scipy_sparse.csc_matrix(dense),
]


def trained(module, X, dtype="float64", scaling=None, **options):
    scaling = scaling or {}
    model = module.MLP([COLUMNS, 9, 3], dtype=dtype, seed=1, dropout=0.2, **scaling)
    options = {"epochs": 3, "batch_size": 8, "validation_data": (X, Y)} | options
    history = model.fit(X, Y, optimizer=module.Adam(0.01), **options)
    return model, np.concatenate([model.parameters.flat, history.loss, history.val_loss])


@pytest.mark.parametrize("stored", ["float64", "float32", "int8", "bool"])
@pytest.mark.parametrize(
    "scaling", [{}, {"input_scale": 0.5, "input_offset": 0.25}], ids=["as it is", "scaled"]
)
def test_training_gives_the_bits_of_the_dense_array(module, dtype, stored, scaling):
    dense = matrix(stored)
    split = {"validation_data": None, "validation_split": 0.2}
    for options in ({}, {"shuffle": False}, {"accumulate": 2}, split):
        found, expected = (
            trained(module, X, dtype, scaling, **options)[1] for X in (scipy_sparse.csr_array(dense), dense)
        )
        assert np.array_equal(found, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_all_else_that_takes_X(module, kind):
    dense = matrix()
    X, model = kind(dense), module.MLP([COLUMNS, 9, 3], dtype="float64", seed=0)
    assert np.array_equal(model.predict(X), model.predict(dense))
    assert np.array_equal(model.forward(X).z[0], model.forward(dense).z[0])
    assert model.loss(X, Y) == model.loss(dense, Y)
    assert model.check_gradients(X, Y).passed
    twin = module.MLP([COLUMNS, 9, 3], dtype="float64", seed=0)
    assert model.train_step(X, Y, module.SGD(0.1)) == twin.train_step(dense, Y, module.SGD(0.1))
    batches = [(X[:9] if hasattr(X, "indptr") else X, Y[:9] if hasattr(X, "indptr") else Y)]
    model.fit(batches, epochs=1, optimizer=module.SGD(0.1))


def test_columns_that_are_twice_in_a_row_are_added_up(module):
    X = scipy_sparse.csr_matrix(([1.0, 2.0, 4.0], [2, 2, 1], [0, 2, 3]), shape=(2, 4))
    model = module.MLP([4, 2], seed=0)
    assert np.array_equal(model.predict(X), model.predict(X.toarray()))
    assert X.nnz == 3  # the caller's is as it was


def test_a_checkpoint_tells_matrices_apart(module, tmp_path):
    dense = matrix()
    X = scipy_sparse.csr_array(dense)
    trained(module, X, checkpoint=tmp_path / "run")
    found = trained(module, X, checkpoint=tmp_path / "run", epochs=4)[1]
    assert np.array_equal(found, trained(module, X, epochs=4)[1])
    X.data[7] += 1
    with pytest.raises(ValueError, match=r"X\.values: "):
        trained(module, X, checkpoint=tmp_path / "run", epochs=5)


def test_it_is_never_dense_as_a_whole():
    rows, columns = 4000, 20_000  # 640 MB as float64
    X = scipy_sparse.random_array((rows, columns), density=0.001, format="csr", rng=0)
    model = fastbp.MLP([columns, 4, 1], output="identity", dtype="float64", seed=0)
    y = np.asarray(X.sum(axis=1))
    model.fit(X[:8], y[:8], epochs=1, optimizer=fastbp.SGD(0.01))  # compiles
    tracemalloc.start()
    try:
        model.fit(X, y, epochs=1, optimizer=fastbp.SGD(0.01))
        model.predict(X)
        model.loss(X, y)
        assert tracemalloc.get_traced_memory()[1] < 160e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda X: X[:, :36], ValueError, "X has 36 columns, the model has 37 inputs"),
        (lambda X: X[:0], ValueError, r"X has shape \(0, 37\), expected \(batch, 37\) with at least one row"),
        (lambda X: X.astype(complex), TypeError, "X has dtype complex128, expected real numbers"),
        (lambda X: X * np.nan, ValueError, r"X holds NaN or infinity, the first is X\[\d+, \d+\] = nan"),
    ],
)
def test_what_is_refused(module, change, error, message):
    X = change(scipy_sparse.csr_array(matrix()))
    model = module.MLP([COLUMNS, 3], seed=0)
    for call in (lambda: model.predict(X), lambda: model.fit(X, Y, epochs=1, optimizer=module.SGD(0.1))):
        with pytest.raises(error, match=message):
            call()


def test_parts_that_do_not_fit_together_are_refused(module):
    model = module.MLP([COLUMNS, 3], seed=0)
    for part, value in (("indices", COLUMNS), ("indptr", 10**9)):
        X = scipy_sparse.csr_array(matrix())
        X.has_canonical_format = True  # nobody looks again
        getattr(X, part)[-1] = value
        with pytest.raises(ValueError, match="indptr, indices and data do not fit together"):
            model.predict(X)
