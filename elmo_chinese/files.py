"""Files on the disk: written whole, by one process at a time, and told from damaged ones by checksum.

Everything that is kept is written one way: beside its place, put on the disk, renamed, and the folder put on the disk
(`writing`). A power cut or a kill leaves the old content or the new, and at most a name of the form `NAME.<8 hex>.tmp`.

**Only what is its own:** a program deletes, replaces, renames or truncates nothing that it cannot prove it made. Proof
is a name made in this process, a temporary name as above of something that is its own, or the id of the run
(`storage/checkpoint.py`). A file never takes the place of a folder, nor a folder that of a file.

SHA256SUMS holds the checksums of a folder's files in the form that `sha256sum -c SHA256SUMS` reads. Needs no Paddle,
which is slow to import.
"""

import errno
import glob
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import tempfile
import time
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import Iterable, Iterator, Optional, Union

from elmo_chinese.command import OptionError, UserError

try:
    import fcntl
except ImportError:  # Windows: two processes that write to one folder are not kept apart
    fcntl = None

SUMS_FILE = "SHA256SUMS"
# What a killed process left half-written is deleted when it was not touched for so long, in seconds.
ABANDONED = 86400.0
LOCK_TRIES = 10  # half a second apart

PathLike = Union[str, Path]


class CheckpointError(UserError, ValueError):
    """A checkpoint or the folder of a run that cannot be written, read or used; the message says which and why."""


# --- writing ---


def sync(path: Path) -> None:
    """Have the operating system put a file or folder on the disk (folders: where the system can)."""
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() or os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def check_place(path: Path, folder: bool = False) -> None:
    """Raise `OSError` if something stands under a name that a new file must not replace, or a new folder (`folder`).

    A file may take the place of a plain file, and nothing that of a folder or a device.
    """
    if path.is_dir():
        what = "a folder of this name is there" if folder else "it is a folder"
        raise IsADirectoryError(errno.EISDIR, f"{what}; choose another name", str(path))
    if os.path.lexists(path) and (folder or not path.is_file()):
        raise FileExistsError(errno.EEXIST, "something else of this name is there; choose another name", str(path))


def move(source: Path, target: Path, replace_folder: bool = False) -> None:
    """Rename a file or folder that is on the disk already; a file may take the place of a plain file.

    Args:
        replace_folder: a folder may take the place of a folder, too: only where both are of a cache of ours, since for
            a moment no folder has the name.

    Raises:
        OSError: it fails, or something else is in the way; what was there is there.
    """
    old = None
    if replace_folder and target.is_dir():
        old = temporary_name(target)
        os.replace(target, old)
    try:
        check_place(target, source.is_dir())
        os.replace(source, target)
    except BaseException:
        if old:
            os.replace(old, target)
        raise
    sync(target.parent)
    if old:
        remove(old)


def temporary_name(path: Path) -> Path:
    """Return a name for what is to take the place of a file or folder, or is to go: `NAME.<8 hex>.tmp`."""
    return path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")


@contextmanager
def writing(path: Path, replace_folder: bool = False) -> Iterator[Path]:
    """Give a name beside `path` for a file or a folder to be made; it takes the place of `path` when all went well.

    A reader sees the old content or the new, never a part. If it fails, what was there is there as it was, and nothing
    is left. A symbolic link stays one: what it leads to is written.

    Args:
        replace_folder: see `move`.

    Raises:
        OSError: a folder, or something else than a plain file, is in the way.
    """
    if path.is_symlink():
        path = Path(os.path.realpath(path))
    if not replace_folder:
        check_place(path)
    remove_unfinished(path.parent, re.escape(path.name))
    beside = temporary_name(path)
    try:
        yield beside
        for entry in [*beside.rglob("*"), beside] if beside.is_dir() else [beside]:
            sync(entry)
        move(beside, path, replace_folder)
    finally:
        remove(beside)


def write_text(path: Path, text: str) -> None:
    """Write a small file in UTF-8, see `writing`."""
    with writing(path) as beside:
        beside.write_bytes(text.encode("utf-8"))


def write_json(path: Path, value: object, indent: Optional[int] = None) -> None:
    """Write a value as JSON in UTF-8, see `writing`; what of a file's name is not UTF-8 becomes an escape."""
    text = json.dumps(value, ensure_ascii=False, indent=indent) + "\n"
    with writing(path) as beside:
        beside.write_bytes(text.encode("utf-8", "backslashreplace"))


def remove(path: Path) -> None:
    """Delete a file or a folder with all in it, if it is there and can be deleted."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        return
    try:
        path.unlink()
    except OSError:
        pass


def discard(folder: Path) -> None:
    """Delete a folder under a temporary name, so that a kill leaves no part of it under its own."""
    going = temporary_name(folder)
    os.replace(folder, going)
    remove(going)


def remove_unfinished(folder: Path, names: str, age: float = ABANDONED) -> None:
    """Delete what killed processes left half-written.

    Args:
        names: regular expression of the names that were to be written. age: nothing younger goes, in seconds.
    """
    if not folder.is_dir():
        return
    for left in folder.iterdir():
        if re.fullmatch(rf"(?:{names})\.[0-9a-f]{{8}}\.tmp", left.name):
            try:
                if time.time() - left.lstat().st_mtime >= age:
                    remove(left)
            except OSError:  # another process is deleting it
                pass


def check_apart(flag: str, outputs: Iterable[PathLike], inputs: Iterable[PathLike]) -> None:
    """Raise `OptionError` if something that is to be written is an input, or would be read as one the next time.

    Links, relative names and hard links are looked through.

    Args:
        flag: that which names the outputs, for the message. outputs: files, or folders that are filled.
        inputs: files, folders with all in them, or glob patterns; what is empty or not there is passed over.
    """
    for pattern in filter(None, map(str, inputs)):
        names = [pattern] if os.path.exists(pattern) else glob.glob(pattern, recursive=True)
        for output in outputs:
            target = Path(os.path.realpath(output))
            for source in map(Path, names):
                place = Path(os.path.realpath(source))
                inside = source.is_dir() and place in target.parents
                if inside or place == target or (os.path.exists(output) and os.path.samefile(output, source)):
                    where = f"{output} is in {source}, which" if inside else f"{output}"
                    raise OptionError(f"{flag}: {where} is an input; choose another name, not among the inputs")
            matching = [name for name in (target, *target.parents) if name.match(os.path.abspath(pattern))]
            if glob.has_magic(pattern) and matching:
                raise OptionError(f"{flag}: {output} would be an input, too, by {pattern}; choose another name")


# --- one process at a time ---


@contextmanager
def lock_folder(folder: Path, busy: str) -> Iterator[None]:
    """Make a folder and keep other processes that do this out of it meanwhile, however this one ends.

    Args:
        busy: what to say if another process is at work there and does not end within some seconds.

    Raises:
        CheckpointError: with `busy`.
        OSError: the folder cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = _lock(folder, os.O_RDONLY, busy) if fcntl else None
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


@contextmanager
def lock_file(path: Path, busy: Optional[str] = None) -> Iterator[None]:
    """Do the same with an empty file that is made for it and removed afterwards, in a cache of ours.

    Args:
        busy: None: wait for the other process as long as it takes.

    Raises:
        OSError: what has this name is no such file, or it cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = _lock(path, os.O_RDWR | os.O_CREAT, busy) if fcntl else None
    try:
        yield
    finally:
        if handle is not None:
            remove(path)
            os.close(handle)


def _lock(path: Path, flags: int, busy: Optional[str]) -> int:
    """Open and lock a folder or an empty file; return the handle, whose closing ends the lock."""
    tries = 0
    while True:
        handle = os.open(path, flags)
        if flags != os.O_RDONLY and os.fstat(handle).st_size:
            os.close(handle)
            raise FileExistsError(errno.EEXIST, "a file of this name is there, and it is no lock", str(path))
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
            if _is(path, handle):
                return handle
        except BlockingIOError:
            tries += 1
            if tries > LOCK_TRIES:
                os.close(handle)
                raise CheckpointError(busy)
            time.sleep(0.5)
        except OSError as error:
            warnings.warn(f"{path} cannot be locked ({error.strerror}); let nothing else write there", stacklevel=4)
            return handle
        os.close(handle)  # another has the lock, or had it and has removed the file since it was opened here


def _is(path: Path, handle: int) -> bool:
    """Say whether an open file is the one that a name stands for now."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except FileNotFoundError:
        return False


# --- checksums ---


def sha256(path: Path) -> str:
    """Return the checksum of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(2**20), b""):
            digest.update(block)
    return digest.hexdigest()


def write_sums(folder: Path, names: Iterable[str]) -> None:
    """Write the checksums of files of a folder beside them."""
    sums = "".join(f"{sha256(folder / name)}  {name}\n" for name in names)
    (folder / SUMS_FILE).write_bytes(sums.encode("utf-8"))


def damage(folder: Path, names: Iterable[str]) -> Optional[str]:
    """Return which of these files of a folder is missing or not as it was written, None if all are sound."""
    try:
        lines = (folder / SUMS_FILE).read_text(encoding="utf-8").splitlines()
        sums = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
    except FileNotFoundError:
        return f"{folder}: no {SUMS_FILE} in it"
    except OSError as error:
        return f"cannot read {folder / SUMS_FILE}: {error.strerror}"
    except ValueError:
        return f"{folder / SUMS_FILE}: damaged"
    for name in names:
        if not (folder / name).is_file():
            return f"{folder / name}: missing"
        try:
            if sums.get(name) != sha256(folder / name):
                return f"{folder / name}: damaged (it is not what {SUMS_FILE} says)"
        except OSError as error:
            return f"cannot read {folder / name}: {error.strerror}"
    return None


# --- the cache ---


def cache_folder() -> Path:
    """Return the folder that keeps what would be costly to make anew: $XDG_CACHE_HOME/elmo_chinese, or ~/.cache's.

    Where that cannot be written, as in containers whose user has no home, one in the temporary folder that belongs
    to this user alone: programs are loaded from it.
    """
    root = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser(os.path.join("~", ".cache")))
    folder = root / "elmo_chinese"
    if root.is_absolute() and can_be_written(folder):
        return folder
    user = os.getuid() if hasattr(os, "getuid") else 0
    folder = Path(tempfile.gettempdir(), f"elmo_chinese-{user}")
    if not can_be_written(folder):
        return folder  # whoever writes there says so
    status = os.lstat(folder)
    others = stat.S_IWGRP | stat.S_IWOTH
    if hasattr(os, "getuid") and (not stat.S_ISDIR(status.st_mode) or status.st_uid != user or status.st_mode & others):
        return Path(tempfile.mkdtemp(prefix="elmo_chinese-"))  # somebody else made it first
    return folder


def can_be_written(folder: Path) -> bool:
    """Say whether a folder is there, or can be made, and takes files."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)
