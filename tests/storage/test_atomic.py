"""How files are written: links, modes, pipes, long names, full disks, and several writers at once."""

import errno
import os
import socket
import stat
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest

import fastbp
from fastbp.storage import atomic


def model(seed=0):
    return fastbp.MLP([2, 3, 1], seed=seed)


def train(path):
    """Writes a checkpoint."""
    model().fit(
        np.zeros((4, 2)),
        np.zeros((4, 1)),
        epochs=1,
        optimizer=fastbp.SGD(0.1),
        checkpoint=path,
        progress=False,
    )


WRITERS = {
    "write": lambda path: atomic.write(path, b"new"),
    "save": lambda path: model().save(path),
    "checkpoint": train,
}


@pytest.fixture(params=WRITERS)
def writer(request):
    """Each way in which Python code makes fastbp write a file."""
    return WRITERS[request.param]


def in_child(code, folder):
    """Run code in a process of its own; what it prints."""
    code = "import os, resource, fastbp\nfrom fastbp.storage import atomic\n" + textwrap.dedent(code)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# ---- what stands at the path -------------------------------------------------------------------------------


def test_a_symbolic_link_stays_and_its_target_is_replaced(tmp_path, writer):
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "link"
    link.symlink_to(Path("elsewhere", "file"))  # relative, and to a file that is not there yet
    writer(link)
    assert os.readlink(link) == os.path.join("elsewhere", "file")
    first = (tmp_path / "elsewhere" / "file").stat().st_ino
    chain = tmp_path / "chain"
    chain.symlink_to(link)
    atomic.write(chain, b"by a chain of links")
    assert (tmp_path / "elsewhere" / "file").read_bytes() == b"by a chain of links"
    assert (tmp_path / "elsewhere" / "file").stat().st_ino != first
    assert chain.is_symlink() and link.is_symlink()
    assert sorted(os.listdir(tmp_path)) == ["chain", "elsewhere", "link"]
    assert os.listdir(tmp_path / "elsewhere") == ["file"]


def test_a_link_to_itself_is_refused(tmp_path, writer):
    link = tmp_path / "link"
    link.symlink_to("link")
    with pytest.raises(OSError, match="link that leads back to itself"):
        writer(link)
    assert link.is_symlink()


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o664, 0o400 | 0o200, 0o755])
def test_the_mode_of_an_overwritten_file_is_kept(tmp_path, mode):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(mode)
    atomic.write(path, b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_model_that_was_private_stays_private(tmp_path):
    path = tmp_path / "model"
    model().save(path)
    path.chmod(0o600)
    model(1).save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_new_file_obeys_the_umask(tmp_path):
    said = in_child(
        """
        for mask in (0o022, 0o077, 0o002):
            os.umask(mask)
            atomic.write(f"{mask:o}", b"")
            print(oct(os.stat(f"{mask:o}").st_mode & 0o777))
        """,
        tmp_path,
    )
    assert said.split() == ["0o644", "0o600", "0o664"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only an administrator may give files away")
def test_the_owner_of_an_overwritten_file_is_kept(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    os.chown(path, 12345, 23456)
    atomic.write(path, b"new")
    assert (path.stat().st_uid, path.stat().st_gid) == (12345, 23456)


def make_pipe(path):
    os.mkfifo(path)


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(os.path.relpath(path))  # the name of a socket may not be long


@pytest.mark.parametrize(("make", "what"), [(make_pipe, "a named pipe"), (make_socket, "a socket")])
def test_a_pipe_or_socket_is_refused_in_words_and_stays(tmp_path, monkeypatch, writer, make, what):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "file"
    make(path)
    kind = stat.S_IFMT(path.stat().st_mode)
    with pytest.raises(OSError, match=f"is {what}, not a regular file") as raised:
        writer(path)
    assert str(path) in str(raised.value)
    with pytest.raises(OSError, match=f"is {what}, not a regular file"):
        fastbp.MLP.load(path)  # rather than waiting for ever
    assert stat.S_IFMT(path.stat().st_mode) == kind
    assert os.listdir(tmp_path) == ["file"]


def test_a_device_is_refused_in_words(writer):
    with pytest.raises(OSError, match="is a device, not a regular file"):
        writer(os.devnull)
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


def test_a_directory_is_refused(tmp_path, writer):
    with pytest.raises(IsADirectoryError, match=r"is a directory"):
        writer(tmp_path)
    with pytest.raises(IsADirectoryError, match="is the name of a directory"):
        writer(f"{tmp_path}/absent/")
    with pytest.raises(FileNotFoundError, match="no such directory"):
        writer(tmp_path / "absent" / "file")
    assert os.listdir(tmp_path) == []


def test_a_write_protected_file_is_refused():
    """Renaming would get round the protection. Shown as a user whom it binds, if this one is root."""
    code = """
        import tempfile
        folder = tempfile.mkdtemp()
        path = os.path.join(folder, "file")
        open(path, "w").close()
        os.chmod(path, 0o400)
        if os.geteuid() == 0:
            os.chown(folder, 12345, 12345)
            os.chown(path, 12345, 12345)
            os.setresuid(12345, 12345, 0)
        try:
            atomic.write(path, b"new")
        except PermissionError as error:
            print("refused:", error.strerror)
        print(os.path.getsize(path), len(os.listdir(folder)))
        if os.getresuid()[2] == 0:
            os.setresuid(0, 0, 0)
        os.unlink(path)
        os.rmdir(folder)
        """
    assert in_child(code, None).splitlines() == ["refused: is there and write-protected", "0 1"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs two users")
def test_another_users_file_in_a_folder_like_tmp_is_refused_before_the_work():
    code = """
        import tempfile
        folder = tempfile.mkdtemp()
        os.chmod(folder, 0o1777)
        path = os.path.join(folder, "file")
        open(path, "w").close()
        os.chmod(path, 0o666)
        os.setresuid(12345, 12345, 0)
        try:
            atomic.check_writable(path)
        except PermissionError as error:
            print(error.strerror)
        atomic.write(path + "2", b"of our own")
        atomic.write(path + "2", b"twice")
        os.setresuid(0, 0, 0)
        print(sorted(os.listdir(folder)))
        """
    said = in_child(code, None).splitlines()
    assert said == ["is another user's, in a folder where none but owners may replace", "['file', 'file2']"]


# ---- names -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("letter", ["m", "\u00e4"])
def test_names_as_long_as_a_file_system_allows(tmp_path, writer, letter):
    path = tmp_path / (letter * (255 // len(letter.encode())))
    assert len(os.fsencode(path.name)) >= 254
    writer(path)
    writer(path)
    assert os.listdir(tmp_path) == [path.name]
    with pytest.raises(OSError, match="File name too long"):
        writer(tmp_path / (path.name + letter))


NO_NAMES = {
    "": (ValueError, "is empty: give the name of a file"),
    b"model": (TypeError, "must be a str or a pathlib.Path, got b'model'"),
    3: (TypeError, "must be a str or a pathlib.Path, got 3"),
    None: (TypeError, "must be a str or a pathlib.Path, got None"),
    "a\0b": (ValueError, r"is 'a\\x00b', which no file can be called"),
    "\ud800": (ValueError, r"is '\\ud800', which no file can be called"),
}


@pytest.mark.parametrize("name", NO_NAMES, ids=ascii)
def test_what_is_no_name_is_refused_with_the_arguments_name(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    error, message = NO_NAMES[name]
    for call in (WRITERS["write"], WRITERS["save"], fastbp.MLP.load):
        with pytest.raises(error, match=f"path {message}"):
            call(name)
    if name is not None:  # there, it is: no checkpoints
        with pytest.raises(error, match=f"checkpoint {message}"):
            train(name)
    assert os.listdir(tmp_path) == []


# ---- failures ----------------------------------------------------------------------------------------------


def train_large(epochs):
    return (
        f"big.fit([[0.0] * 200], [[0.0]], epochs={epochs}, optimizer=fastbp.SGD(0.1), "
        "checkpoint='file', progress=False)"
    )


@pytest.mark.parametrize(
    ("before", "write"),
    [
        ("open('file', 'w').write('old')", "atomic.write('file', bytes(100_000))"),
        ("open('file', 'w').write('old')", "big.save('file')"),
        (train_large(1), train_large(2)),
    ],
    ids=WRITERS,
)
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, before, write):
    """A limit on the size of files ends a write in its middle, as a full disk does."""
    said = in_child(
        f"""
        big = fastbp.MLP([200, 100, 1], seed=0)
        big.fit([[0.0] * 200], [[0.0]], epochs=1, optimizer=fastbp.SGD(0.1), progress=False)  # compiles
        big.reset()
        {before}
        content = open('file', 'rb').read()
        resource.setrlimit(resource.RLIMIT_FSIZE, (9_999, 9_999))
        try:
            {write}
        except OSError as error:
            print(error.errno, "file" in str(error))
        print(open('file', 'rb').read() == content)
        """,
        tmp_path,
    )
    assert said.split() == [str(errno.EFBIG), "True", "True"]
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only an administrator may mount a disk")
def test_a_disk_that_is_really_full(tmp_path):
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(tmp_path)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        path = tmp_path / "file"
        path.write_bytes(b"old")
        with pytest.raises(OSError, match="No space left on device") as raised:
            fastbp.MLP([200, 100, 1], seed=0).save(path)
        assert raised.value.filename == str(path)
        assert (os.listdir(tmp_path), path.read_bytes()) == (["file"], b"old")
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_ctrl_c_while_it_is_written(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        atomic.write(path, b"new")
    assert (os.listdir(tmp_path), path.read_bytes()) == (["file"], b"old")


# ---- several writers ---------------------------------------------------------------------------------------


def test_threads_that_save_to_one_path_do_not_disturb_each_other(tmp_path):
    path, failed = tmp_path / "model", []
    models = [model(seed) for seed in range(4)]

    def save(of):
        try:
            for _ in range(50):
                of.save(path)
                fastbp.MLP.load(path)  # always whole
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=save, args=(of,)) for of in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert os.listdir(tmp_path) == ["model"]
    last = fastbp.MLP.load(path).weights[0]
    assert any(np.array_equal(last, of.weights[0]) for of in models)


def test_processes_that_save_to_one_path_do_not_disturb_each_other(tmp_path):
    code = (
        "import sys, fastbp\nmodel = fastbp.MLP([2, 3, 1], seed=int(sys.argv[1]))\n"
        "for _ in range(100):\n    model.save('model')\n    fastbp.MLP.load('model')\n"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(seed)], cwd=tmp_path, stderr=subprocess.PIPE)
        for seed in range(3)
    ]
    for process in writers:
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
    assert os.listdir(tmp_path) == ["model"]
    fastbp.MLP.load(tmp_path / "model")
