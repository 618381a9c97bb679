"""Writing files so that nobody ever finds half of one: `write` is the only way in which fastbp writes a file.

The content goes to a temporary file in the same folder, to the disk, and then takes the place of what was
there, which the system does at once or not at all. So the old file outlives a full disk, a killed process
and two processes that write to one name; the last one wins.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import stat
from pathlib import Path

from fastbp import checks

KINDS_OF_FILES = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def file_name(path: object, argument: str = "path") -> str:
    """`path` as text. TypeError or ValueError, with the argument's name, for what cannot name a file."""
    name = os.fspath(path) if isinstance(path, os.PathLike) else path
    if not isinstance(name, str):
        raise TypeError(f"{argument} must be a str or a pathlib.Path, got {checks.shown(path)}")
    if not name:
        raise ValueError(f"{argument} is empty: give the name of a file")
    try:
        encoded = os.fsencode(name)
    except UnicodeEncodeError:
        encoded = b"\0"
    if b"\0" in encoded:
        raise ValueError(f"{argument} is {name!r}, which no file can be called")
    return name


def check_regular(path: str) -> None:
    """OSError unless there is such a file, and it is neither a directory nor a pipe, device or socket."""
    kind = stat.S_IFMT(os.stat(path).st_mode)
    if kind == stat.S_IFDIR:
        raise IsADirectoryError(errno.EISDIR, "is a directory, the name of a file is expected", path)
    if kind != stat.S_IFREG:
        what = KINDS_OF_FILES.get(kind, "something else")
        raise OSError(errno.EINVAL, f"is {what}, not a regular file", path)


def check_writable(path: str | os.PathLike[str], argument: str = "path") -> Path:
    """The file that `write` would replace: of a symbolic link, the one that it points to.

    OSError now, rather than after minutes of training, if it cannot be written; TypeError or ValueError (see
    `file_name`) for what is no name.
    """
    name = file_name(path, argument)
    target = Path(os.path.realpath(name))
    if target.is_symlink():
        raise OSError(errno.ELOOP, "is a symbolic link that leads back to itself", name)
    if name.endswith(("/", os.sep)):
        raise IsADirectoryError(errno.EISDIR, "is the name of a directory, that of a file is expected", name)
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, f"no such directory: {target.parent}", name)
    try:
        check_regular(str(target))
    except FileNotFoundError:
        pass
    except OSError as error:
        raise _of(error, name) from None
    else:
        if not os.access(target, os.W_OK):
            raise PermissionError(errno.EACCES, "is there and write-protected", name)
        if _is_kept_by_its_folder(target):
            raise PermissionError(
                errno.EPERM, "is another user's, in a folder where none but owners may replace", name
            )
    if not os.access(target.parent, os.W_OK):
        raise PermissionError(errno.EACCES, f"the directory {target.parent} is not writable", name)
    return target


def _is_kept_by_its_folder(target: Path) -> bool:
    """Whether it is in a folder like /tmp, where files may be written to, but not replaced by others."""
    folder, user = target.parent.stat(), os.geteuid() if hasattr(os, "geteuid") else 0
    return bool(folder.st_mode & stat.S_ISVTX) and user not in (0, folder.st_uid, target.stat().st_uid)


def write(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file as a whole: at `path` is either the old or the new one, whatever happens.

    A symbolic link stays, the file that it points to is replaced. The new file has the old one's mode and, if
    this process may give files away, its owner. Other hard links to the old file keep the old content.

    OSError, which names `path`, if that cannot be done; then nothing has changed, and nothing is left behind.
    """
    target = check_writable(path)
    temporary = target.with_name(f"{_prefix(target)}{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        _write_new(temporary, target, data)
        os.replace(temporary, target)
    except OSError as error:
        raise _of(error, os.fspath(path)) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    _sync_directory(target.parent)


def _write_new(temporary: Path, target: Path, data: bytes) -> None:
    """A new file with this content, on the disk, and as accessible as `target` is, if there is one."""
    old = target.stat() if target.exists() else None
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    # Private until the mode is known: what was private must not be readable for a moment either.
    descriptor = os.open(temporary, flags, 0o666 if old is None else 0o600)
    with open(descriptor, "wb") as file:
        if old is not None:
            if hasattr(os, "chown"):
                with contextlib.suppress(OSError):  # only an administrator may give files away
                    os.chown(temporary, old.st_uid, old.st_gid)
            os.chmod(temporary, stat.S_IMODE(old.st_mode))
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _of(error: OSError, path: str) -> OSError:
    """The same error, of the file that the caller has named."""
    if error.errno is None:
        return OSError(f"{path} cannot be written: {error}")
    return OSError(error.errno, error.strerror, path)


def _prefix(target: Path) -> str:
    """What the temporary files of `target` begin with: a digest, because its name may be a long one."""
    return f".fastbp-{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:12]}-"


def _sync_directory(directory: Path) -> None:
    """Bring the renaming to the disk, where the system has a way to (Windows has none)."""
    with contextlib.suppress(OSError):
        opened = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def remove_leftovers(path: str | os.PathLike[str]) -> None:
    """Delete what processes that were killed while they wrote `path` have left behind."""
    target = Path(os.path.realpath(path))
    prefix = _prefix(target)
    for temporary in target.parent.glob(f"{prefix}*.tmp"):
        process = temporary.name.removeprefix(prefix).partition("-")[0]
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
