"""fastbp.kernels' products against NumPy's, over shapes that cross every edge, and their bits."""

import numba
import numpy as np
import pytest
from bits import teams_for_all

from fastbp import kernels
from fastbp.kernels.arguments import lanes

DTYPES = ["float32", "float64"]
# Around vectors of 4, 8 and 16 numbers, and microkernels of 6 and 14 rows.
ROWS = (1, 2, 3, 5, 7, 13, 29, 35)
DEPTHS = (0, 1, 3, 8, 17, 31)
COLUMNS = (1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 33, 50)
# Over the pieces of the depth, blocks of rows and shares of workers.
LARGE = [
    (70, 600, 130),
    (300, 257, 65),
    (350, 600, 61),
    (5, 700, 900),
    (1, 1024, 1024),
    (900, 520, 3),
    (901, 520, 1),
    (901, 523, 1),
    (257, 33, 512),
    (2, 3, 999),
    (12, 40, 1501),  # few rows, in several pieces of the columns
    (4001, 9, 3),
    (101, 2048, 50),  # rows that meet one set of the first-level cache
    (60, 90, 100),
    (150, 70, 2),  # few columns, whose transposed product takes four vectors of rows, two or one
    (139, 200, 7),
    (120, 260, 15),
    (9, 300, 3),
    (2000, 4, 70),  # few k, whose C is written row by row
    (900, 7, 301),
    (4001, 1, 1),  # one column of few k, with a vector of many rows
    (901, 3, 1),
    (2005, 6, 1),
    (13, 300, 1),
    (40, 9, 100),  # few k, and columns beyond whole vectors
    (40, 1024, 150),  # both rows of A that conflict, and in float64 a large B
    (7, 65, 300),  # four panels at a time, and some left
    (90, 700, 310),  # a B that is packed
    (330, 800, 257),
    (270, 9, 500),  # a C that is written some rows at a time
    (700, 300, 6),  # dot products with an A that takes several blocks
    (1, 2100, 1),  # one dot product, as several sums
    (1, 7, 1003),  # a vector, and rows that share vectors, have one, or several
    (1, 13, 1003),
    (507, 77, 1),
    (100, 5, 301),  # in A @ B.T a B that is turned by picking its columns, or in squares
    (100, 7, 301),
    (350, 70, 7),
]


def matrices(dtype, rows, depth, columns):
    rng = np.random.default_rng([rows, depth, columns])
    A, B = rng.standard_normal((rows, depth)), rng.standard_normal((depth, columns))
    return A.astype(dtype), B.astype(dtype), rng.standard_normal(columns).astype(dtype)


def all_products(A, B, b, out=None):
    """Each in its own way: the results are the same numbers, but for b."""
    At, Bt = np.ascontiguousarray(A.T), np.ascontiguousarray(B.T)
    yield "matmul", kernels.matmul(A, B, out), 0
    yield "matmul_bias", kernels.matmul_bias(A, B, b, out), b
    yield "matmul_at_b", kernels.matmul_at_b(At, B, out), 0
    yield "matmul_a_bt", kernels.matmul_a_bt(A, Bt, out), 0


def assert_close(name, got, A, B, b):
    exact = A.astype(np.float64) @ B.astype(np.float64) + b
    # The error of a sum is bounded by depth * eps * the sum of absolute values (Higham, section 3.1).
    bound = (A.shape[1] + 1) * np.finfo(A.dtype).eps * (np.abs(A) @ np.abs(B) + np.abs(b))
    assert got.dtype == A.dtype and got.shape == exact.shape, name
    assert np.all(np.abs(got - exact) <= bound), (name, A.shape, B.shape)


@pytest.mark.parametrize("dtype", DTYPES)
def test_small_shapes(dtype):
    for rows in ROWS:
        for depth in DEPTHS:
            for columns in COLUMNS:
                A, B, b = matrices(dtype, rows, depth, columns)
                for name, got, bias in all_products(A, B, b):
                    assert_close(name, got, A, B, bias)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", LARGE)
def test_large_shapes_and_an_out(dtype, shape):
    A, B, b = matrices(dtype, *shape)
    out = np.full((shape[0] + 2, shape[2]), np.nan, dtype)  # nothing before or behind it is written
    for name, got, bias in all_products(A, B, b, out[1:-1]):
        assert got is not None and np.shares_memory(got, out)
        assert_close(name, out[1:-1], A, B, bias)
        assert np.isnan(out[[0, -1]]).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_number_of_threads_changes_no_bit(dtype):
    most = numba.config.NUMBA_NUM_THREADS
    for shape in [*LARGE, (128, 784, 256)]:
        A, B, b = matrices(dtype, *shape)
        with teams_for_all():
            together = [got.tobytes() for _, got, _ in all_products(A, B, b)]
        try:
            numba.set_num_threads(1)
            alone = [got.tobytes() for _, got, _ in all_products(A, B, b)]
        finally:
            numba.set_num_threads(most)
        assert together == alone, shape


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_number_of_rows_changes_no_bit_of_one(dtype):
    """Whether B is swept, read where it lies or packed. (Up to half a vector beyond whole ones is for many
    rows a product of its own.)"""
    for columns in (29, 77, 605):
        A, B, b = matrices(dtype, 40, 301, columns)
        At = np.ascontiguousarray(A.T)
        expected = kernels.matmul_bias(A, B, b).tobytes(), kernels.matmul(A, B).tobytes()
        for count in (1, 2, 3, 5, 12, 13, 14):
            several = [kernels.matmul_bias(A[i : i + count], B, b) for i in range(0, 40, count)]
            assert b"".join(z.tobytes() for z in several) == expected[0], (columns, count)
            of_columns = [np.ascontiguousarray(At[:, i : i + count]) for i in range(0, 40, count)]
            several = [kernels.matmul_at_b(columns_of_a, B) for columns_of_a in of_columns]
            assert b"".join(z.tobytes() for z in several) == expected[1], (columns, count)


def placed(numbers, offset):
    """A copy that begins so many bytes behind a cache line, and what it lies in: NaN before and behind it."""
    size = numbers.itemsize
    around = np.full(numbers.size + 2 * 128 // size, np.nan, numbers.dtype)
    first = ((offset - around.ctypes.data) % 64 + 64) // size
    here = around[first : first + numbers.size].reshape(numbers.shape)
    here[:] = numbers
    return here, around


@pytest.mark.parametrize("dtype", DTYPES)
def test_where_matrices_lie_changes_no_bit(dtype):
    """Panels begin with cache lines, wherever the matrices do."""
    vector = lanes(np.zeros(1, dtype))
    shapes = [
        (rows, depth, panels * vector)
        for rows, depth, panels in [
            (3, 40, 16),
            (7, 12, 17),
            (30, 9, 19),
            (130, 20, 18),
            (20, 3, 21),
            (2, 50, 17),
        ]
    ]
    for rows, depth, columns in [*shapes, (20, 5, 16 * vector + 3), (1, 300, 16 * vector)]:
        A, B, b = matrices(dtype, rows, depth, columns)
        with teams_for_all():
            want = [got.tobytes() for _, got, _ in all_products(A, B, b)]
        for of_b, of_c in [(16, 16), (48, 32), (0, 16), (8, 0), (56, 24)]:
            C, around = placed(np.zeros((rows, columns), dtype), of_c)
            outside = np.isnan(around)
            with teams_for_all():
                results = all_products(A, placed(B, of_b)[0], b, C)
                for expected, (name, got, _) in zip(want, results, strict=True):
                    assert got.tobytes() == expected, (name, rows, depth, columns, of_b, of_c)
                    assert np.array_equal(np.isnan(around), outside), (name, rows, depth, columns)


@pytest.mark.parametrize("dtype", DTYPES)
def test_of_columns_beyond_whole_vectors_the_number_of_many_rows_changes_no_bit(dtype):
    for columns in (17, 20, 33, 72):
        A, B, b = matrices(dtype, 259, 301, columns)
        of_bias, of_transposed = kernels.matmul_bias(A, B, b), kernels.matmul_at_b(A.T.copy(), B)
        for rows in (16, 17, 18, 19, 21, 40):
            assert kernels.matmul_bias(A[:rows], B, b).tobytes() == of_bias[:rows].tobytes(), (columns, rows)
            got = kernels.matmul_at_b(A[:rows].T.copy(), B)
            assert got.tobytes() == of_transposed[:rows].tobytes(), (columns, rows)


@pytest.mark.parametrize("shape", [(0, 3, 4), (3, 0, 4), (3, 4, 0), (0, 0, 0)])
def test_empty_matrices(shape):
    A, B, b = matrices("float64", *shape)
    for name, got, bias in all_products(A, B, b):
        np.testing.assert_array_equal(got, A @ B + bias, err_msg=name)


def test_not_finite_numbers_stay_where_they_are():
    A, B, _ = matrices("float32", 3, 9, 5)
    A[1, 8] = np.inf
    B[:, 2] = np.abs(B[:, 2])
    assert np.isposinf(kernels.matmul(A, B)[1, 2]) and np.isfinite(kernels.matmul(A, B)[[0, 2]]).all()


@pytest.mark.parametrize(
    ("name", "shapes", "words"),
    [
        ("matmul", [(2, 3), (4, 5)], ["(2, 3)", "(4, 5)"]),
        ("matmul_bias", [(2, 3), (3, 5), (4,)], ["(2, 3)", "(3, 5)", "(4,)"]),
        ("matmul_bias", [(2, 3), (4, 5), (5,)], ["(2, 3)", "(4, 5)"]),
        ("matmul_at_b", [(2, 3), (3, 5)], ["(2, 3)", "(3, 5)"]),
        ("matmul_a_bt", [(2, 3), (3, 5)], ["(2, 3)", "(3, 5)"]),
        ("matmul", [(2, 3), (3, 5), (5, 2)], ["out", "(5, 2)", "(2, 5)"]),
    ],
)
def test_shapes_that_do_not_line_up(name, shapes, words):
    with pytest.raises(ValueError) as error:
        getattr(kernels, name)(*map(np.ones, shapes))
    assert all(word in str(error.value) for word in words), error.value


def test_out_may_not_overlap():
    A = np.ones((4, 4))
    with pytest.raises(ValueError, match="shares memory"):
        kernels.matmul(A, np.ones((4, 4)), A)
    with pytest.raises(ValueError, match="shares memory"):
        kernels.matmul_bias(np.ones((4, 4)), np.ones((4, 4)), A[1], A)
    assert (A == 1).all()


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (np.ones((3, 3), order="F"), "in F order"),
        (np.ones((3, 6))[:, ::2], "not contiguous"),
        (np.ones((3, 3), np.float32), "holds float32"),
        (np.ones((3, 3), np.int64), "holds int64"),
        (np.ones(3), "1 dimensions"),
        ([[1.0]], "no array"),
        (None, "no array"),
    ],
)
def test_arrays_that_kernels_do_not_take(bad, words):
    with pytest.raises(TypeError, match=f"B .*{words}"):
        kernels.matmul(np.ones((3, 3)), bad)


def test_an_out_that_is_read_only():
    out = np.ones((3, 3))
    out.flags.writeable = False
    with pytest.raises(TypeError, match="out is read-only"):
        kernels.matmul(np.ones((3, 3)), np.ones((3, 3)), out)


def test_operands_may_be_read_only():
    A = np.ones((3, 3))
    A.flags.writeable = False
    np.testing.assert_array_equal(kernels.matmul(A, A), A @ A)


@pytest.mark.parametrize("dtype", DTYPES)
def test_of_few_columns_the_number_of_rows_changes_no_bit(dtype):
    """Other numbers of rows are read side by side."""
    for columns in (1, 2, 3, 4, 5, 8, 9, 15):
        for depth in (66, 301):
            A, B, b = matrices(dtype, 259, depth, columns)
            if columns > lanes(A):
                continue
            want = np.concatenate([kernels.matmul_bias(A[i : i + 1], B, b) for i in range(len(A))])
            for rows in (2, 3, 4, 5, 7, 9, 13, 15, 16, 20, 259):
                assert kernels.matmul_bias(A[:rows], B, b).tobytes() == want[:rows].tobytes(), (columns, rows)


@pytest.mark.parametrize("dtype", DTYPES)
def test_of_a_vector_and_short_rows_their_number_changes_no_bit(dtype):
    for depth in (3, 7, 13, 40, 301):
        A, B, b = matrices(dtype, 259, depth, 1)
        want, of_transposed = kernels.matmul_bias(A, B, b), kernels.matmul_a_bt(B.T.copy(), A)
        assert kernels.matmul(A, B).tobytes() == of_transposed.tobytes(), depth
        for rows in (33, 64, 130):
            assert kernels.matmul_bias(A[:rows], B, b).tobytes() == want[:rows].tobytes(), (depth, rows)


@pytest.mark.parametrize("dtype", DTYPES)
def test_where_the_operands_lie_changes_no_bit(dtype):
    """Of A.T @ B vectors begin where A's cache lines do, also in its rows; nothing behind C is written."""
    size = np.dtype(dtype).itemsize
    for rows, depth, columns in ((256, 48, 3), (256, 100, 4), (272, 65, 7), (256, 33, 1), (256, 64, 19)):
        A, B, _ = matrices(dtype, rows, depth, columns)
        A = np.ascontiguousarray(A.T)
        want, memory = kernels.matmul_at_b(A, B), np.empty(A.nbytes + 256, np.uint8)
        np.testing.assert_allclose(want, A.T @ B, rtol=1e-3, atol=1e-3)
        for offset in range(0, 64, size):
            first = (offset - memory.ctypes.data) % 64
            there = memory[first : first + A.nbytes].view(dtype).reshape(A.shape)
            there[:] = A
            out = np.full((rows + 1, columns), 7, dtype)
            kernels.matmul_at_b(there, B, out[:-1])
            assert out[:-1].tobytes() == want.tobytes() and np.all(out[-1] == 7), (rows, columns, offset)


@pytest.mark.parametrize("dtype", DTYPES)
def test_large_products_of_few_transposed_rows_are_those_of_their_rows(dtype):
    """Of large ones other numbers of rows are read side by side."""
    for columns in (1, 3):
        A, B, _ = matrices(dtype, 259, 301, columns)
        if columns >= lanes(A):
            continue
        Bt = np.ascontiguousarray(B.T)
        want = np.concatenate([kernels.matmul_a_bt(A[i : i + 1], Bt) for i in range(len(A))])
        assert kernels.matmul_a_bt(A, Bt).tobytes() == want.tobytes()
        assert kernels.matmul_a_bt(A[:20], Bt).tobytes() == want[:20].tobytes()
