"""SHA256SUMS: the checksums of a folder's files, in the form that `sha256sum -c SHA256SUMS` reads."""

import hashlib
from pathlib import Path
from typing import Iterable, Optional

SUMS_FILE = "SHA256SUMS"


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
