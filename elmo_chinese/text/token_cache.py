"""Text as word ids on the disk, made once and then memory-mapped, so that it may be far larger than memory.

All files of a text go into one folder of the cache, whatever their number:

    tokens.i4    all sentences as word ids, with `<S>` before and `</S>` after each
    starts.i8    where each sentence starts in it, and where the last one ends
    index.json   of which files and vocabulary it was made; size, time of change and inode of these files and of the
                 two above; checksums. Its last line is its own.

At a start nothing but the index is read. A file whose size, time of change and inode are those of the index is taken as
unchanged; of any other the content decides. What is new or has changed is encoded, the rest is copied from what the
cache has of it. `verify` reads all.
"""

import hashlib
import json
import multiprocessing
import os
import re
import shutil
import time
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, Dict, Iterator, List, NamedTuple, Optional, Tuple

from elmo_chinese.console import say
from elmo_chinese.files import lock_file, remove_unfinished, sha256, write_text, writing
from elmo_chinese.runtime import available_cores
from elmo_chinese.text.reading import InputError, read_sentences
from elmo_chinese.text.vocabulary import Vocabulary

import numpy as np

ARRAYS = {"tokens.i4": "<i4", "starts.i8": "<i8"}
INDEX = "index.json"
FORM = ".4"  # of the cache, the end of its folders' names
# A file that was read so soon after its last change, in ns, may have changed again within the same tick of its clock.
SURE_AFTER = 2 * 10**9
LARGE = 100 * 2**20  # bytes of text; encoding more takes a while, and all cores
COPIED = 2**24  # numbers at once
STARTED = time.time_ns()  # what another process has verified since then, this one need not

Stamp = Tuple[int, int, int]  # size, time of change in ns, inode


class Entry(NamedTuple):
    """What the index says of a file of text.

    name: its path from the folder of the cache. stamp: when it was read. read_at: the time then, in ns.
    key: checksum of content and vocabulary. tokens, sentences: how many of them it has.
    """

    name: str
    stamp: Stamp
    read_at: int
    key: str
    tokens: int
    sentences: int

    def is_of(self, stamp: Stamp) -> bool:
        """Say whether a file with this stamp is the one that was read."""
        return stamp == self.stamp and self.stamp[1] + SURE_AFTER < self.read_at


class EncodedText(NamedTuple):
    """A text as word ids: sentence i is `tokens[starts[i]:starts[i + 1]]`, `<S>` and `</S>` included.

    Attributes:
        tokens: int32 `[tokens]`, memory-mapped; the files one after the other.
        starts: int64 `[sentences + 1]`, memory-mapped.
        first_sentences: int64 `[files + 1]`, the number of each file's first sentence.
        corpus: fingerprint of the content of all files and of the vocabulary.
        files, entries: the files of text, and the index's entry of each.
        mapped: the two files of the cache as they were when they were opened.
    """

    tokens: np.ndarray
    starts: np.ndarray
    first_sentences: np.ndarray
    corpus: str
    files: List[Path]
    entries: List[Entry]
    mapped: List[Tuple[Path, Stamp]]

    def check_cache(self) -> None:
        """Raise `InputError` if the cache is not what it was when it was opened.

        What is mapped into memory must not be touched when its file has become shorter: the process would be ended.
        """
        for path, stamp in self.mapped:
            if stamp_of(path) != stamp:
                raise _changed(path, "resume, it will be made anew:")

    def check_file(self, index: int, vocabulary: Vocabulary) -> None:
        """Raise `InputError` if a file of text is not what it was; touched or copied back, it is the same."""
        path, entry = self.files[index], self.entries[index]
        stamp = stamp_of(path)
        if stamp != entry.stamp:
            if not path.is_file() or _key_of(path, vocabulary) != entry.key:
                raise _changed(path, "put it back as it was, then resume")
            self.entries[index] = entry._replace(stamp=stamp)


def _changed(path: Path, what_to_do: str) -> InputError:
    happened = "changed" if path.exists() else "vanished"
    what_to_do += " from the last checkpoint with --load_dir auto"
    return InputError(f"{path} {happened} while it was being used; {what_to_do}")


def stamp_of(path: Path) -> Stamp:
    """Return size, time of change and inode of a file; zeros if it is gone."""
    try:
        status = os.stat(path)
    except OSError:
        return 0, 0, 0
    return status.st_size, status.st_mtime_ns, status.st_ino


def _key_of(path: Path, vocabulary: Vocabulary) -> str:
    digest = hashlib.sha256(vocabulary.sha256.encode("ascii"))
    try:
        with open(path, "rb") as file:
            for block in iter(lambda: file.read(2**22), b""):
                digest.update(block)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}")
    return digest.hexdigest()[:32]


# --- opening ---


class Index(NamedTuple):
    """What the index of a folder says: stamp and checksum of each array, and an entry for each file of text."""

    arrays: List[Tuple[Stamp, str]]
    entries: List[Entry]


def encode(files: List[Path], vocabulary: Vocabulary, cache_dir: Path, verify: bool = False) -> EncodedText:
    """Return a text from the cache; what is not there, has changed or is damaged is encoded first.

    Of several processes that want the same text one encodes it, and the others wait.

    Args:
        verify: read text and cache, whatever size and time of change say. One process of those that start now does it.

    Raises:
        InputError: the text changes meanwhile, or the cache cannot be written.
    """
    names = [os.path.relpath(path, cache_dir) for path in files]
    key = hashlib.sha256("\0".join([vocabulary.sha256, *names]).encode("utf-8", "surrogateescape")).hexdigest()[:32]
    folder = cache_dir / f"{key}{FORM}"
    index, _ = _load_index(folder, vocabulary)
    if not verify and index and _is_unchanged(folder, files, index):
        return _open(folder, files, index.entries)
    try:
        with lock_file(cache_dir / f"{key}.lock"):
            index, problem = _load_index(folder, vocabulary)
            if index and _is_unchanged(folder, files, index):
                if not verify or stamp_of(folder / INDEX)[1] > STARTED:  # another process was quicker
                    return _open(folder, files, index.entries)
            problem = problem or _damage(folder, vocabulary, index, verify)
            if problem and folder.exists():
                say(f"warning: {problem}; it is made anew from the text")
            entries = _look_at(files, names, [] if problem else index.entries, vocabulary, verify)
            if problem or any(entry.tokens == 0 for entry in entries):
                remove_unfinished(cache_dir, "[0-9a-f]{32}" + re.escape(FORM))
                remove_unfinished(cache_dir, re.escape(folder.name), age=0)
                entries = _make(folder, files, entries, vocabulary, folder if problem else None)
            else:
                _write_index(folder, vocabulary, [digest for _, digest in index.arrays], entries)
    except OSError as error:
        raise InputError(f"cannot write the token cache to {folder}: {error.strerror}; choose a --cache_dir")
    return _open(folder, files, entries)


def _map(folder: Path) -> List[np.ndarray]:
    return [np.asarray(np.memmap(folder / name, form, mode="r")) for name, form in ARRAYS.items()]


def _open(folder: Path, files: List[Path], entries: List[Entry]) -> EncodedText:
    mapped = [(folder / name, stamp_of(folder / name)) for name in ARRAYS]
    tokens, starts = _map(folder)
    first = np.cumsum([0, *(entry.sentences for entry in entries)], dtype=np.int64)
    corpus = hashlib.sha256(" ".join(entry.key for entry in entries).encode("ascii")).hexdigest()
    return EncodedText(tokens, starts, first, corpus, files, list(entries), mapped)


def _load_index(folder: Path, vocabulary: Vocabulary) -> Tuple[Optional[Index], Optional[str]]:
    """Return the index of a folder, or None and what is wrong with it."""
    try:
        text, _, digest = (folder / INDEX).read_bytes().rpartition(b"\n")
        if hashlib.sha256(text).hexdigest() != digest.decode("ascii", "replace"):
            return None, f"{folder / INDEX}: damaged"
        index = json.loads(text)
        if index["vocabulary"] != vocabulary.sha256:
            return None, f"{folder}: was made with another vocabulary"
        arrays = [(tuple(stamp), digest) for stamp, digest in index["arrays"]]
        return Index(arrays, [Entry(name, tuple(stamp), *rest) for name, stamp, *rest in index["entries"]]), None
    except OSError as error:
        return None, f"{folder / INDEX}: {error.strerror}"
    except (ValueError, KeyError, TypeError):
        return None, f"{folder / INDEX}: no index of a cache"


def _write_index(folder: Path, vocabulary: Vocabulary, sums: List[str], entries: List[Entry]) -> None:
    arrays = [(stamp_of(folder / name), digest) for name, digest in zip(ARRAYS, sums)]
    content = {"vocabulary": vocabulary.sha256, "arrays": arrays, "entries": entries}
    text = json.dumps(content, separators=(",", ":"))
    write_text(folder / INDEX, f"{text}\n{hashlib.sha256(text.encode('ascii')).hexdigest()}")


def _has_its_arrays(folder: Path, index: Index) -> bool:
    return [stamp for stamp, _ in index.arrays] == [stamp_of(folder / name) for name in ARRAYS]


def _is_unchanged(folder: Path, files: List[Path], index: Index) -> bool:
    """Say whether neither the text nor its cache need be read."""
    unchanged = all(entry.is_of(stamp_of(path)) for path, entry in zip(files, index.entries))
    return unchanged and _has_its_arrays(folder, index)


def _damage(folder: Path, vocabulary: Vocabulary, index: Index, verify: bool) -> Optional[str]:
    """Return what is wrong with the arrays, None if nothing is; they are not read if their stamps are the index's."""
    if not verify and _has_its_arrays(folder, index):
        return None
    for name, (_, digest) in zip(ARRAYS, index.arrays):
        if not (folder / name).is_file():
            return f"{folder / name}: missing"
        if sha256(folder / name) != digest:
            return f"{folder / name}: damaged (it is not what {INDEX} says)"
    tokens, starts = _map(folder)
    sentences = sum(entry.sentences for entry in index.entries)
    if len(starts) - 1 != sentences or starts[0] != 0 or starts[-1] != len(tokens) or (np.diff(starts) < 2).any():
        return f"{folder}: its sentences do not make up its {len(tokens)} tokens"
    if tokens.min() < 0 or tokens.max() >= vocabulary.size:
        return f"{folder}: holds ids beyond the {vocabulary.size} words of the vocabulary"
    return None


def _look_at(
    files: List[Path], names: List[str], entries: List[Entry], vocabulary: Vocabulary, verify: bool
) -> List[Entry]:
    """Return the entries of files as they are now; what is new or has changed has 0 tokens."""
    known, found = {entry.name: entry for entry in entries}, []
    for path, name in zip(files, names):
        entry, stamp, now = known.get(name), stamp_of(path), time.time_ns()
        if entry is None or verify or not entry.is_of(stamp):
            key = _key_of(path, vocabulary)
            same = entry is not None and entry.key == key
            entry = Entry(name, stamp, now, key, *((entry.tokens, entry.sentences) if same else (0, 0)))
        found.append(entry)
    return found


# --- making ---


Piece = Tuple[np.ndarray, np.ndarray]  # tokens of sentences that are encoded already, and starts, beginning anywhere


class _Writer:
    """Writes the arrays of a folder, and their checksums with them."""

    def __init__(self, tokens: BinaryIO, starts: BinaryIO):
        self.files, self.sums = (tokens, starts), (hashlib.sha256(), hashlib.sha256())
        self.tokens = self.sentences = 0

    def _write(self, number: int, array: np.ndarray) -> None:
        data = array.astype(list(ARRAYS.values())[number]).tobytes()
        self.files[number].write(data)  # not `tofile`, whose errors do not say why
        self.sums[number].update(data)

    def add(self, tokens: np.ndarray, lengths: np.ndarray) -> None:
        """Append sentences: int `[tokens]`, and how many of these each has."""
        ends = np.cumsum(lengths, dtype=np.int64) + self.tokens
        self._write(1, ends - lengths)
        self._write(0, tokens)
        self.tokens, self.sentences = self.tokens + len(tokens), self.sentences + len(lengths)

    def copy(self, piece: Piece) -> None:
        """Append what is encoded already."""
        tokens, starts = piece
        for first in range(0, len(starts) - 1, COPIED):
            some = starts[first : first + COPIED + 1]
            self.add(tokens[some[0] - starts[0] : some[-1] - starts[0]], np.diff(some))

    def finish(self) -> List[str]:
        """Write where the last sentence ends; return the checksums."""
        self._write(1, np.array([self.tokens]))
        return [digest.hexdigest() for digest in self.sums]


@contextmanager
def _writer(folder: Path) -> Iterator[_Writer]:
    with ExitStack() as stack:
        yield _Writer(*(stack.enter_context(open(folder / name, "wb")) for name in ARRAYS))


def _encode_file(path: Path, vocabulary: Vocabulary, writer: _Writer) -> None:
    ids, unknown = vocabulary.ids, vocabulary.unknown
    for block in read_sentences(path):
        flat: List[int] = []
        for words in block:
            flat.append(vocabulary.start)
            flat += [ids.get(word, unknown) for word in words]
            flat.append(vocabulary.end)
        writer.add(np.array(flat, dtype=np.int32), np.array([len(words) + 2 for words in block]))


def _make(
    folder: Path, files: List[Path], entries: List[Entry], vocabulary: Vocabulary, damaged: Optional[Path]
) -> List[Entry]:
    """Write a folder of the cache; return the entries with their numbers of tokens and sentences.

    Args:
        damaged: a folder of the cache that nothing is taken from.
    """
    pieces, made = _pieces_of_cache(folder.parent, vocabulary, damaged), []
    missing = {entry.key: path for path, entry in zip(files, entries) if entry.key not in pieces}
    size = sum(path.stat().st_size for path in missing.values())
    if size > LARGE:
        say(f"encoding {size / 2**30:.1f} GB of text in {len(missing)} files, once, into {folder}")
    with writing(folder, replace_folder=True) as beside:
        beside.mkdir()
        with _writer(beside) as writer, _encoded_by_others(missing, vocabulary, beside, size) as parts:
            for path, entry in zip(files, entries):
                tokens, sentences = writer.tokens, writer.sentences
                if entry.key in pieces:
                    writer.copy(pieces[entry.key])
                elif parts is None:
                    _encode_file(path, vocabulary, writer)
                else:
                    pieces[entry.key] = _map(parts[entry.key].result())
                    writer.copy(pieces[entry.key])
                if stamp_of(path) != entry.stamp and _key_of(path, vocabulary) != entry.key:
                    raise InputError(f"{path} changed while it was read; start again when nothing writes to it")
                made.append(entry._replace(tokens=writer.tokens - tokens, sentences=writer.sentences - sentences))
            sums = writer.finish()
        _write_index(beside, vocabulary, sums, made)
    return made


def _pieces_of_cache(cache_dir: Path, vocabulary: Vocabulary, damaged: Optional[Path]) -> Dict[str, Piece]:
    """Return what is encoded already of any text with this vocabulary, by the key of its file."""
    pieces: Dict[str, Piece] = {}
    for folder in sorted(cache_dir.glob(f"*{FORM}")):
        index, _ = _load_index(folder, vocabulary)
        if index is None or folder == damaged or not _has_its_arrays(folder, index):
            continue
        tokens, starts = _map(folder)
        token = sentence = 0
        for entry in index.entries:
            ends = token + entry.tokens, sentence + entry.sentences
            pieces.setdefault(entry.key, (tokens[token : ends[0]], starts[sentence : ends[1] + 1]))
            token, sentence = ends
    return pieces


_vocabulary: Optional[Vocabulary] = None  # of a worker, which takes it over when it is forked


@contextmanager
def _encoded_by_others(
    missing: Dict[str, Path], vocabulary: Vocabulary, folder: Path, size: int
) -> Iterator[Optional[Dict[str, Future]]]:
    """Give a future of a folder for each key, encoded by other processes; None where this one may as well do it."""
    workers = min(available_cores(), len(missing)) if size > LARGE else 1
    if workers == 1 or "fork" not in multiprocessing.get_all_start_methods():
        yield None
        return
    parts = folder / "parts"
    parts.mkdir()
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(vocabulary,)) as pool:
        futures = {key: pool.submit(_encode_part, path, parts / key) for key, path in missing.items()}
        try:
            yield futures
        finally:
            for future in futures.values():
                future.cancel()
    shutil.rmtree(parts)


def _start_worker(vocabulary: Vocabulary) -> None:
    global _vocabulary
    _vocabulary = vocabulary


def _encode_part(path: Path, folder: Path) -> Path:
    folder.mkdir()
    with _writer(folder) as writer:
        _encode_file(path, _vocabulary, writer)
        writer.finish()
    return folder
