"""IDX files: reading all kinds of them, what is refused, and training on images."""

import gzip
import os
import struct

import numpy as np
import pytest

import fastbp
from fastbp.cli.errors import DataError
from fastbp.cli.main import main
from fastbp.cli.tables import idx
from fastbp.cli.train import data

FASHION = "/usr/share/datasets/fashion-mnist"
CODES = {"u1": 8, "i1": 9, "i2": 11, "i4": 12, "f4": 13, "f8": 14}


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def packed(values):
    head = struct.pack(f">BBBB{values.ndim}I", 0, 0, CODES[values.dtype.str[1:]], values.ndim, *values.shape)
    return head + values.astype(values.dtype.newbyteorder(">")).tobytes()


def write(path, content):
    content = packed(content) if isinstance(content, np.ndarray) else content
    with open(path, "wb") as file:
        file.write(gzip.compress(content, 1) if path.endswith(".gz") else content)
    return path


def write_images(folder, rows=60):
    """Four files: 4 x 5 pixels, three classes by where the bright ones are; one pixel is always dark."""
    rng = np.random.default_rng(0)
    os.makedirs(folder, exist_ok=True)
    for part, n in (("train", rows), ("t10k", rows // 2)):
        labels = (np.arange(n) % 3).astype(np.uint8)
        images = rng.integers(0, 90, (n, 4, 5)).astype(np.uint8)
        for k in range(3):
            images[labels == k, k + 1] += 150
        images[:, 0, 0] = 0
        write(f"{folder}/{part}-images-idx3-ubyte.gz", images)
        write(f"{folder}/{part}-labels-idx1-ubyte", labels)


@pytest.mark.parametrize("dtype", CODES)
def test_every_dtype_plain_and_zipped(dtype):
    values = np.array([[0, 1, 100], [-3, 7, 5]]).astype(dtype)
    for path in ("a.idx", "a.gz"):
        found = idx.read(write(path, values))
        assert found.dtype == np.dtype(dtype)
        assert found.dtype.isnative
        np.testing.assert_array_equal(found, values)


IMAGES = packed(np.zeros((2, 2, 3), np.uint8))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no IDX file: it begins with nothing"),
        (b"PNG...", "is no IDX file: it begins with 50 4e 47 2e"),
        (b"\0\0\x0a\1\0\0\0\1\0", "is no IDX file: it begins with 00 00 0a 01"),
        (b"\0\0\x08\0\0", "is no IDX file: it begins with 00 00 08 00"),
        (IMAGES[:9], "ends within its header"),
        (IMAGES[:-1], "should hold 12 bytes for shape (2, 2, 3) of uint8, it has 11"),
        (IMAGES + b"\0", "should hold 12 bytes for shape (2, 2, 3) of uint8, it has more"),
        (struct.pack(">BBBB3I", 0, 0, 14, 3, *[2**32 - 1] * 3), "it has 0"),  # 6e29 bytes are not asked for
        (packed(np.zeros((0, 2, 3), np.uint8)), r"is empty, its shape is (0, 2, 3)"),
        (packed(np.zeros(3, np.uint8)), "those are labels, not images"),
        (packed(np.full((2, 2, 3), np.nan, "f4")), "row 0, column 0 (counted from 0): nan is not a finite"),
        (gzip.compress(IMAGES, mtime=0)[:-9], "is a damaged gzip file"),
        (gzip.compress(IMAGES, mtime=0)[:10] + b"\xff" * 20, "is a damaged gzip file"),
    ],
)
def test_damaged_files(content, message):
    with pytest.raises(DataError) as refused:
        idx.read_table(write("a.idx", content), None)
    assert message in str(refused.value)


def test_images_stay_as_they_are_and_tables_become_floats():
    labels = write("labels", np.array([5, 6], np.uint8))
    table = idx.read_table(write("images", np.arange(12, dtype=np.uint8).reshape(2, 2, 3)), labels)
    assert (table.features.dtype, table.features.shape, table.image) == (np.uint8, (2, 6), (2, 3))
    np.testing.assert_array_equal(table.target, [5, 6])
    table = idx.read_table(write("table", np.ones((2, 6), np.int16)), labels)
    assert (table.features.dtype, table.image) == (np.float64, None)
    with pytest.raises(DataError, match=r"labels has shape \(2,\), \(3,\) is expected"):
        idx.read_table(write("more", np.zeros((3, 2, 3), np.uint8)), labels)


def test_labels_of_images_are_classes_however_many():
    """As in EMNIST. Of a table, that many whole numbers would be a quantity."""
    labels = np.arange(60, dtype=np.uint8) % 26
    write("images", np.zeros((60, 2, 2), np.uint8))
    assert data._kind(idx.read_table("images", write("labels", labels))) == "classification"
    assert data._kind(idx.read_table("images", write("labels", labels + np.float32(0.5)))) == "regression"


def test_a_folder_is_trained_on_and_its_images_are_predicted(capsys):
    write_images("images")
    command = "train images --hidden 8 --epochs 20 --validation 0.2 --out m.safetensors"
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        pass
    else:
        command += " --plot p.png"
    assert main(command.split()) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "90 rows, 20 features (4 x 5 images), target 'label' with 3 classes (0, 1, 2)" in captured.out
    assert "training   48 rows, 20 epochs" in captured.out
    held_out = next(line for line in captured.out.splitlines() if line.startswith("held out")).split()
    assert (held_out[2], float(held_out[4])) == ("30", 1.0)

    model = fastbp.MLP.load("m.safetensors")
    architecture = model.architecture.to_json()
    scale, offset = architecture["input_scale"], architecture["input_offset"]
    images = idx.read("images/train-images-idx3-ubyte.gz")
    assert abs(images.mean() * scale + offset) < 0.05  # of the 48 rows it would be 0 to rounding
    assert abs(images.std() * scale - 1) < 0.05
    capsys.readouterr()
    images, labels = "images/t10k-images-idx3-ubyte.gz", "images/t10k-labels-idx1-ubyte"
    assert main(f"predict m.safetensors {images} --labels {labels} --out p.npy".split()) == 0
    assert "compared with column 'label': accuracy 1" in capsys.readouterr().out
    np.testing.assert_array_equal(np.load("p.npy"), np.arange(30) % 3)
    # A row of pixels in another kind of file is the same to the model.
    np.save("pixels.npy", idx.read(images).reshape(30, -1))
    assert main(["predict", "m.safetensors", "pixels.npy", "--out", "q.npy"]) == 0
    np.testing.assert_array_equal(np.load("q.npy"), np.load("p.npy"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("images --target y", "--target is not for images, a folder with four IDX files"),
        ("images --test-size 0.1", "--test-size is not for images, a folder with a test part of its own"),
        ("empty", "empty has no train-images-idx3-ubyte or train-images-idx3-ubyte.gz"),
        ("images/train-images-idx3-ubyte.gz", "--labels is needed"),
        (
            "images/train-images-idx3-ubyte.gz --labels images/t10k-labels-idx1-ubyte",
            "has shape (30,), (60,) is expected",
        ),
        (
            "images/train-images-idx3-ubyte.gz --labels images/train-labels-idx1-ubyte --test wide.idx "
            "--test-labels images/t10k-labels-idx1-ubyte",
            "wide.idx has rows of shape (5, 4), those to train on have (4, 5)",
        ),
    ],
)
def test_refused_before_training(capsys, monkeypatch, line, message):
    write_images("images")
    os.mkdir("empty")
    write("wide.idx", np.zeros((30, 5, 4), np.uint8))
    monkeypatch.setattr(fastbp.MLP, "fit", lambda *a, **k: pytest.fail("trained"))
    assert main(f"train {line} --out m.safetensors".split()) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert message in error


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir(FASHION), reason="needs Debian's package dataset-fashion-mnist")
def test_fashion_mnist_with_one_hidden_layer(capsys):
    """The README's settings, for fewer epochs."""
    options = "--hidden 256 --dropout 0.3 --batch-size 128 --schedule one-cycle --epochs 8"
    assert main(f"train {FASHION} {options} --out m.safetensors".split()) == 0
    held_out = next(
        line for line in capsys.readouterr().out.splitlines() if line.startswith("held out")
    ).split()
    assert held_out[2] == "10000"
    assert float(held_out[4]) >= 0.88
