"""Files on the disk: written whole, and told from damaged ones by checksum. Needs no Paddle, which is slow to import.

SHA256SUMS holds the checksums of a folder's files in the form that `sha256sum -c SHA256SUMS` reads.
"""

import hashlib
import os
import stat
import tempfile
from pathlib import Path
from typing import Iterable, Optional

SUMS_FILE = "SHA256SUMS"


class CheckpointError(ValueError):
    """A checkpoint that cannot be written, read or used; the message says which and why."""


def sync(path: Path) -> None:
    """Have the operating system put a file or folder on the disk (folders: where the system can)."""
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() or os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write a small file so that a reader sees the old or the new content, never a part."""
    beside = path.with_name(path.name + ".tmp")
    beside.write_text(text, encoding="utf-8")
    sync(beside)
    os.replace(beside, path)


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


def cache_folder() -> Path:
    """Return the folder that keeps what would be costly to make anew: $XDG_CACHE_HOME/elmo_chinese, or ~/.cache's.

    Where that cannot be written, as in containers whose user has no home, one in the temporary folder that belongs
    to this user alone: programs are loaded from it.
    """
    root = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser(os.path.join("~", ".cache")))
    folder = root / "elmo_chinese"
    if root.is_absolute() and _can_be_written(folder):
        return folder
    user = os.getuid() if hasattr(os, "getuid") else 0
    folder = Path(tempfile.gettempdir(), f"elmo_chinese-{user}")
    if not _can_be_written(folder):
        return folder  # whoever writes there says so
    status = os.lstat(folder)
    others = stat.S_IWGRP | stat.S_IWOTH
    if hasattr(os, "getuid") and (not stat.S_ISDIR(status.st_mode) or status.st_uid != user or status.st_mode & others):
        return Path(tempfile.mkdtemp(prefix="elmo_chinese-"))  # somebody else made it first
    return folder


def _can_be_written(folder: Path) -> bool:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)
