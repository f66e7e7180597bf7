"""A pretrained model that is packed or far away: from a `.tar.gz` file or its address to a folder.

    ~/.cache/elmo_chinese/        or $XDG_CACHE_HOME/elmo_chinese
      <key>/                      an unpacked archive; there only when it is complete
      <key>.part, <key>.tag       a download under way, and which version of the file it is
      <key>.….tmp/                unpacking under way
      <key>.lock                  held by the process that works on this key

The key is a hash of the archive's content, for an address a hash of the address: delete `<key>/` to have it
fetched again. Nobody has to trust an archive: what it may write, where and how much is checked member by
member before anything is written.
"""

import gzip
import hashlib
import http.client
import itertools
import os
import tarfile
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, contextmanager
from pathlib import Path, PureWindowsPath
from typing import BinaryIO, Callable, Iterator, Optional, Union

from elmo_chinese.console import Progress, say
from elmo_chinese.files import cache_folder, lock_file, remove_unfinished, sha256, write_text, writing
from elmo_chinese.storage.checkpoint import MODEL_FILE, resolve
from elmo_chinese.text.reading import InputError

# The released archive unpacks to 0.4 GB in 17 files; one of our checkpoints at its sizes to about 2 GB in 6.
MAX_BYTES = 2**34
MAX_MEMBERS = 10000
# So much of an archive may be taken up by what describes one member.
MAX_HEADER = 2**20
BLOCK = 2**16
# A connection that gets no further is tried so often, with so many seconds before the second try, twice that
# before the third …
TRIES = 3
PAUSE = 1.0
TIMEOUT = 60

PathLike = Union[str, Path]


class WriteError(InputError):
    """The cache cannot be written; the message says where, and what to do."""


def is_address(path_or_address: PathLike) -> bool:
    """Say whether this is an http(s) address and not a path."""
    return str(path_or_address).lower().startswith(("http://", "https://"))


def local_folder(path_or_address: PathLike, cache_dir: Optional[PathLike] = None) -> Path:
    """Return the folder that holds a pretrained model.

    Args:
        path_or_address: a folder (returned as it is; of a run, its best checkpoint), a `.tar.gz` file of one (unpacked
            once), or the http(s) address of such a file (downloaded and unpacked once; a download that was cut goes
            on where it stopped).
        cache_dir: where archives are unpacked to; default: `files.cache_folder()`.

    Returns:
        the folder inside the archive that has `embedding_para` or `model.pdparams` in it.

    Raises:
        InputError: nothing there, no such archive, no model in it, a member that has no business in it, a
            download that fails, a cache that cannot be written.
    """
    name, path = str(path_or_address), Path(path_or_address)
    if not is_address(name):
        if path.is_dir():
            return resolve(path)
        if not path.is_file():
            raise InputError(f"{path}: no such folder or archive (looked from {os.getcwd()})")
    cache = Path(cache_dir) if cache_dir else cache_folder()
    key = hashlib.sha256(name.encode("utf-8")).hexdigest()[:32] if is_address(name) else _content_key(path)
    folder = cache / key
    if not folder.is_dir():
        with ExitStack() as stack:
            with _written(folder):
                stack.enter_context(lock_file(cache / f"{key}.lock"))  # the processes of a run want it all at once
            if not folder.is_dir():  # another process may have been quicker
                _fill(folder, name)
    return _model_folder(folder, name)


def _fill(folder: Path, name: str) -> None:
    remove_unfinished(folder.parent, folder.name, age=0)  # nobody else is at work on it
    if not is_address(name):
        unpack(Path(name), folder, name)
        return
    part = folder.with_name(folder.name + ".part")
    download(name, part)
    try:
        unpack(part, folder, name)
    except WriteError:
        raise  # the download is whole: with room made, the next call unpacks it
    except InputError:
        _forget(part)  # a bad download is not worth keeping: the next call fetches it anew
        raise
    _forget(part)


def _content_key(path: Path) -> str:
    try:
        return sha256(path)[:32]
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}")


@contextmanager
def _written(path: Path) -> Iterator[None]:
    """Turn a failure to write into an error that says where."""
    try:
        yield
    except OSError as error:
        raise WriteError(
            f"cannot write {path}: {error.strerror}; make room there, or set XDG_CACHE_HOME to another folder"
        )


def _write(file: BinaryIO, block: bytes, path: Path) -> None:
    """Write all of a block to an unbuffered file."""
    with _written(path):
        rest = memoryview(block)
        while rest:
            rest = rest[file.write(rest) :]


def _model_folder(folder: Path, name: str) -> Path:
    names = ("embedding_para", MODEL_FILE)
    found = sorted({path.parent for wanted in names for path in folder.rglob(wanted) if path.is_file()})
    if not found:
        raise InputError(f"{name}: no {' and no '.join(names)} in it, so it holds no pretrained model")
    if len(found) > 1:
        inside = ", ".join(str(path.relative_to(folder)) for path in found[:5])
        raise InputError(f"{name}: holds {len(found)} models ({inside}); unpack it and give one of these folders")
    return found[0]


# --- download ---


def download(address: str, part: Path) -> None:
    """Fetch a file to `part`, resuming from what is there already.

    Raises:
        InputError: the server refuses, or the connection gets no further `TRIES` times in a row; what has come
            so far is kept.
    """
    furthest, failures = -1, 0
    while True:
        problem = _attempt(address, part)
        if problem is None:
            return
        failures = 1 if _size(part) > furthest else failures + 1
        furthest = max(furthest, _size(part))
        if failures == TRIES:
            raise InputError(
                f"{address}: {problem}, {TRIES} times without getting further; "
                f"{_size(part):,} bytes are kept, the same command resumes there"
            )
        say(f"{problem}; trying again")
        time.sleep(PAUSE * failures)


def _attempt(address: str, part: Path) -> Optional[str]:
    """Connect once and fetch what is missing; return None when all is there, else what went wrong."""
    try:
        _fetch_rest(address, part)
        return None
    except urllib.error.HTTPError as error:
        if error.code == 416 and error.headers.get("Content-Range") == f"bytes */{_size(part)}":
            return None  # nothing is missing: an earlier process was killed before it could unpack
        if error.code == 416:  # what is there is longer than the file, so it is not a part of it
            _forget(part)
        elif error.code < 500 and error.code not in (408, 429):
            raise InputError(f"{address}: the server answers {error.code} {error.reason}")
        return f"the server answers {error.code} {error.reason}"
    except InputError:
        raise
    except (OSError, http.client.HTTPException) as error:
        return f"connection failed: {getattr(error, 'reason', None) or error or type(error).__name__}"
    except ValueError as error:
        raise InputError(f"{address}: not a usable address: {error}")


def _fetch_rest(address: str, part: Path) -> None:
    """Append what is missing to `part`; start afresh if the server will not resume there.

    Raises:
        ConnectionError: fewer bytes came than were announced.
    """
    tag = part.with_suffix(".tag")
    have = _size(part)
    headers = {"User-Agent": "elmo_chinese"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if tag.is_file():  # the rest of another version of the file would be of no use
            headers["If-Range"] = tag.read_text(encoding="utf-8")
    with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=TIMEOUT) as response:
        if response.status != 206:
            have = 0
            _forget(part)  # before the new version is noted: its rest would fit what is there of the old one
            _note_version(response.headers, tag)
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            _forget(part)
            raise ConnectionError(f"asked for bytes from {have} on, got {response.headers.get('Content-Range')}")
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        if (total or 0) > MAX_BYTES:
            raise InputError(f"{address}: {total:,} bytes, more than the {MAX_BYTES:,} that are accepted")
        say(f"downloading {address}: {_megabytes(total)}" + (f", resuming from {_megabytes(have)}" if have else ""))
        progress = Progress(total, "MB", 10**6, have) if total else None
        with _written(part):
            file = open(part, "ab" if have else "wb", buffering=0)
        with file:
            for block in iter(lambda: response.read(BLOCK), b""):
                have += len(block)
                if have > MAX_BYTES:
                    raise InputError(f"{address}: more than the {MAX_BYTES:,} bytes that are accepted")
                _write(file, block, part)
                if progress:
                    progress.add(len(block))
    if total is not None and have != total:
        raise ConnectionError(f"{have:,} of {total:,} bytes came")


def _note_version(headers, tag: Path) -> None:
    """Keep what tells this version of a remote file from others, if the server says it."""
    etag = headers.get("ETag", "")
    version = headers.get("Last-Modified", "") if etag.startswith("W/") or not etag else etag
    if version:
        with _written(tag):
            write_text(tag, version)


def _forget(part: Path) -> None:
    for path in (part, part.with_suffix(".tag")):
        if path.exists():
            path.unlink()


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _megabytes(count: Optional[int]) -> str:
    return "size unknown" if count is None else f"{count / 1e6:.1f} MB"


# --- unpacking ---


class _Guarded:
    """A decompressed stream that gives out `left` bytes and no more, until somebody sets `left` again.

    `tarfile` reads the headers it meets into memory whole, however long they claim to be.
    """

    def __init__(self, stream: BinaryIO):
        self.stream, self.left = stream, MAX_HEADER

    def read(self, size: int = -1) -> bytes:
        self.left -= size
        if size < 0 or self.left < 0:
            raise tarfile.ReadError("what describes a member is too long")
        return self.stream.read(size)

    def seek(self, place: int) -> int:
        return self.stream.seek(place)

    def tell(self) -> int:
        return self.stream.tell()


def unpack(archive: Path, folder: Path, name: str) -> None:
    """Unpack a `.tar.gz` that holds a pretrained model: all of it, or nothing.

    Args:
        archive: the file.
        folder: where its content goes; made here, by renaming, once everything is in place.
        name: what to call the archive in messages.

    Raises:
        InputError: not such an archive, damaged, no model in it, or a member that is neither a plain file nor
            a folder, lies outside the folder, comes twice, or is too much (`MAX_BYTES`, `MAX_MEMBERS`).
    """
    say(f"unpacking {name} to {folder}")
    with _written(folder), writing(folder) as beside:
        extract(archive, beside, name)
        _model_folder(beside, name)


def extract(archive: Path, folder: Path, name: str, wanted: Callable[[str], bool] = lambda member_name: True) -> None:
    """Unpack the wanted members of any `.tar.gz` into a new folder; arguments and errors as of `unpack`."""
    with _written(folder):
        folder.mkdir(parents=True)
    try:
        _extract(archive, folder, name, wanted)
    except InputError:
        raise
    except Exception as error:  # a damaged archive raises nearly anything; all of it means the same here
        raise InputError(f"{name}: not a .tar.gz archive, or a damaged one: {error}")


def _extract(archive: Path, folder: Path, name: str, wanted: Callable[[str], bool]) -> None:
    total = 0
    with gzip.open(archive) as stream:
        source = _Guarded(stream)
        with tarfile.open(fileobj=source, mode="r:") as tar:
            for count in itertools.count(1):
                source.left = MAX_HEADER
                member = tar.next()
                if member is None:
                    break
                total += member.size
                objection = _objection(member, count, total)
                target = folder / member.name
                if not objection and target.exists() and not (target.is_dir() and member.isdir()):
                    objection = "comes twice"
                if objection:
                    raise InputError(f"{name}: refused, nothing is unpacked: member {member.name!r} {objection}")
                source.left = member.size + MAX_HEADER
                if wanted(member.name):
                    _extract_member(tar, member, target)
        # Only at its end does gzip compare the checksum.
        while source.read(BLOCK):
            pass


def _objection(member: tarfile.TarInfo, count: int, total: int) -> Optional[str]:
    """Return what speaks against unpacking a member, None if nothing does."""
    path = PureWindowsPath(member.name)  # takes both kinds of slashes and drive letters for what they may mean
    if path.root or path.drive:
        return "has an absolute path"
    if ".." in path.parts:
        return "leads out of the folder"
    if member.islnk():
        return "is a hard link to another; of a run, pack one checkpoint alone"
    if not member.isdir() and (not member.isreg() or member.issparse()):
        return "is neither a plain file nor a folder"
    if member.size < 0:
        return f"claims a size of {member.size}"
    if total > MAX_BYTES:
        return f"brings the total to {total:,} bytes, more than the {MAX_BYTES:,} that are accepted"
    if count > MAX_MEMBERS:
        return f"is number {count:,}, more than the {MAX_MEMBERS:,} that are accepted"
    return None


def _extract_member(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    """Write one member; owner, mode and times are left aside."""
    with _written(target):
        (target if member.isdir() else target.parent).mkdir(parents=True, exist_ok=True)
    if member.isdir():
        return
    source, written = tar.extractfile(member), 0
    with _written(target):
        file = open(target, "xb", buffering=0)
    with file:
        for block in iter(lambda: source.read(BLOCK), b""):
            _write(file, block, target)
            written += len(block)
    if written != member.size:
        raise EOFError(f"{member.name} is cut short")
