"""From text to batches: the cache of word ids, and the batches of both directions.

1. Text is one sentence a line, words apart by any white space, in one or many files ("shards").
2. Each shard is encoded once into a folder of the cache: `tokens.i4`, all sentences as word ids with
   `<S>` before and `</S>` after each, and `starts.i8`, where each sentence starts. Both are memory-mapped,
   so a corpus may be far larger than memory. `key` says which text and vocabulary it was, `SHA256SUMS` whether
   all are as they were written.
3. Every row of a batch is an endless stream of sentences. A row that has used up its sentence takes the
   next one in file order, so no padding is needed:

        sentence stream     <S> a b </S>   <S> c d e </S>   <S> f </S>   <S> g h </S> …
        batch of 2 × 3      row 0: a b </S>    then <S> f …     (x lags y by one word)
                            row 1: c d e       then </S> <S> …

   The backward direction reads the same sentences at the same places, each from its end.
4. Shuffled, the shards come in an order of chance, in blocks of so many that they have `MIXED` words together, and the
   sentences of a block are mixed: a language model that gets one kind of text after the other forgets the first.
"""

import hashlib
import os
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple, Union

from elmo_chinese.console import say
from elmo_chinese.files import damage, lock_file, remove_unfinished, write_sums, writing
from elmo_chinese.text.reading import InputError, PathLike, find_files, read_sentences
from elmo_chinese.text.vocabulary import Vocabulary

import numpy as np

Batch = Tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


class Shard(NamedTuple):
    """An encoded shard: sentence i is `tokens[starts[i]:starts[i + 1]]`, `<S>` and `</S>` included.

    `files` are the text and what it was encoded to, with size and time of change as they were then.
    """

    key: str
    tokens: np.ndarray
    starts: np.ndarray
    files: List[Tuple[Path, Tuple[int, int]]]


CACHE_FILES = ("tokens.i4", "starts.i8", "key")
MIXED = 50_000_000  # words; with 20 a sentence, what says their order takes 40 MB


def _stamp(path: Path) -> Tuple[int, int]:
    """Return size and time of change of a file; zeros if it is gone."""
    try:
        status = os.stat(path)
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns


def _shard_key(path: Path, vocabulary: Vocabulary) -> str:
    digest = hashlib.sha256(vocabulary.sha256.encode("ascii"))
    try:
        with open(path, "rb") as file:
            for block in iter(lambda: file.read(2**22), b""):
                digest.update(block)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}")
    return digest.hexdigest()[:32]


def _write_encoded(path: Path, vocabulary: Vocabulary, folder: Path) -> None:
    ids, unknown = vocabulary.ids, vocabulary.unknown
    written = 0
    with open(folder / "tokens.i4", "wb") as tokens, open(folder / "starts.i8", "wb") as starts:
        for block in read_sentences(path):
            flat, lengths = [], []
            for words in block:
                flat.append(vocabulary.start)
                flat += [ids.get(word, unknown) for word in words]
                flat.append(vocabulary.end)
                lengths.append(len(words) + 2)
            ends = np.cumsum(lengths) + written
            # Not `tofile`, whose errors do not say why.
            starts.write((ends - lengths).astype("<i8").tobytes())
            tokens.write(np.array(flat, dtype="<i4").tobytes())
            written += len(flat)
        starts.write(np.array([written], dtype="<i8").tobytes())


def encode_shard(path: Path, vocabulary: Vocabulary, cache_dir: Path) -> Shard:
    """Return a shard from the cache, encoding it first if its text or the vocabulary is new, or the cache is damaged.

    Of several processes that want the same shard one encodes it, and the others wait.

    Raises:
        InputError: the text changes meanwhile, or the cache cannot be written.
    """
    text = (path, _stamp(path))
    key = _shard_key(path, vocabulary)
    folder = cache_dir / f"{key}.3"  # the third form of the cache
    found, problem = _open_encoded(folder, key, vocabulary)
    if found is None:
        try:
            with lock_file(cache_dir / f"{key}.lock"):
                found, problem = _open_encoded(folder, key, vocabulary)  # another process may have been quicker
                if found is None:
                    if folder.exists():
                        say(f"warning: {problem}; it is made anew from {path}")
                    remove_unfinished(cache_dir, r"[0-9a-f]{32}\.2")
                    remove_unfinished(cache_dir, rf"{key}\.2", age=0)
                    _fill(folder, key, text, vocabulary)
                    found, problem = _open_encoded(folder, key, vocabulary)
        except OSError as error:
            raise InputError(f"cannot write the token cache to {folder}: {error.strerror}; choose a --cache_dir")
    if found is None:
        raise InputError(f"{problem}, just after it was written; choose a --cache_dir on another disk")
    mapped = [folder / name for name in CACHE_FILES[:2]]
    return Shard(key, *found, [text, *((path, _stamp(path)) for path in mapped)])


def _fill(folder: Path, key: str, text: Tuple[Path, Tuple[int, int]], vocabulary: Vocabulary) -> None:
    """Encode a text, whose size and time of change are given, to a folder of the cache."""
    path, stamp = text
    with writing(folder, replace_folder=True) as beside:
        beside.mkdir()
        _write_encoded(path, vocabulary, beside)
        if _stamp(path) != stamp and _shard_key(path, vocabulary) != key:
            raise InputError(f"{path} changed while it was read; start again when nothing writes to it")
        (beside / "key").write_text(key, encoding="ascii")
        write_sums(beside, CACHE_FILES)


def _open_encoded(folder: Path, key: str, vocabulary: Vocabulary) -> Tuple[Optional[List[np.ndarray]], Optional[str]]:
    """Return tokens and starts of a folder of the cache, or None and what is wrong with it."""
    problem = damage(folder, CACHE_FILES)
    if problem:
        return None, problem
    tokens, starts = (np.asarray(np.memmap(folder / n, "<" + n[-2:], mode="r")) for n in CACHE_FILES[:2])
    problem = _disagreement(folder, key, tokens, starts, vocabulary)
    return (None, problem) if problem else ([tokens, starts], None)


def _disagreement(
    folder: Path, key: str, tokens: np.ndarray, starts: np.ndarray, vocabulary: Vocabulary
) -> Optional[str]:
    """Return what in a cache with right checksums is not of this text and vocabulary, None if nothing is."""
    if (folder / "key").read_bytes() != key.encode("ascii"):
        return f"{folder}: was made from other text or with another vocabulary"
    if starts[0] != 0 or starts[-1] != len(tokens) or (np.diff(starts) < 2).any():
        return f"{folder}: its sentences do not make up its {len(tokens)} tokens"
    if tokens.min() < 0 or tokens.max() >= vocabulary.size:
        return f"{folder}: holds ids beyond the {vocabulary.size} words of the vocabulary"
    return None


class BidirectionalReader:
    """Batches of word ids in both directions, for one process of several.

    Args:
        paths: glob pattern, folder, or list of text files; read in sorted order.
        vocabulary: the vocabulary.
        batch_size: rows of this process. The global batch is `batch_size × world_size` rows; what is in
            it does not depend on how many processes share it.
        num_steps: words per row and batch.
        shuffle: draw the order of the sentences anew for each epoch, mixed over shards.
        seed: of the shuffling, which is a pure function of seed and epoch.
        rank, world_size: this process takes rows `rank × batch_size` to `(rank + 1) × batch_size`.
        cache_dir: where encoded shards are kept; default: a folder `.token_cache` beside each shard.

    Attributes:
        tokens_per_epoch: words to predict in one pass (each sentence's words and its end).
        corpus: fingerprint of text and vocabulary.

    Iterating gives training batches for ever: x, y, x_reverse, y_reverse, int64 `[batch_size, num_steps]`.
    """

    def __init__(
        self,
        paths: Union[PathLike, Sequence[PathLike]],
        vocabulary: Vocabulary,
        batch_size: int,
        num_steps: int,
        shuffle: bool = False,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        cache_dir: Optional[PathLike] = None,
    ):
        if batch_size < 1 or num_steps < 1:
            raise ValueError(f"batch_size and num_steps must be positive, got {batch_size} and {num_steps}")
        files = find_files(paths)
        # Starting at different shards, the processes of a machine share the work of encoding them.
        encoded: Dict[int, Shard] = {}
        for number in range(len(files)):
            index = (number + rank) % len(files)
            folder = Path(cache_dir) if cache_dir else files[index].parent / ".token_cache"
            encoded[index] = encode_shard(files[index], vocabulary, folder)
        self.shards = [encoded[index] for index in range(len(files))]
        self.vocabulary = vocabulary
        self.batch_size, self.num_steps = batch_size, num_steps
        self.shuffle, self.seed = shuffle, seed
        self.mixed = MIXED if shuffle else 0  # words of a block; 0: each shard is one, as in older versions
        self.rows, self.first_row = batch_size * world_size, batch_size * rank
        self.tokens_per_epoch = sum(len(shard.tokens) - len(shard.starts) + 1 for shard in self.shards)
        self.corpus = hashlib.sha256(" ".join(shard.key for shard in self.shards).encode("ascii")).hexdigest()
        self._rewind()

    def _rewind(self) -> None:
        # Where the next sentence comes from …
        self._epoch = self._block = self._sentence = 0
        self._blocks: Optional[List[List[int]]] = None
        self._order: Optional[Tuple[np.ndarray, np.ndarray]] = None
        # … and for each row: shard, places of the next word forward and backward, words left in its sentence.
        self._row_state = [[0, 0, 0, 0] for _ in range(self.rows)]

    def _make_blocks(self) -> List[List[int]]:
        """Return the shards of each block of this epoch."""
        order, blocks, words = range(len(self.shards)), [], 0
        if self.shuffle:
            order = self._random(0).permutation(len(self.shards)).tolist()
        for index in order:
            if not blocks or words + len(self.shards[index].tokens) > self.mixed:
                blocks.append([])
                words = 0
            blocks[-1].append(index)
            words += len(self.shards[index].tokens)
        return blocks

    def _open_block(self) -> Tuple[np.ndarray, np.ndarray]:
        """Return shard and number of each sentence of the current block, in their order."""
        if self._blocks is None:
            self._blocks = self._make_blocks()
        block = self._blocks[self._block]
        counts = [len(self.shards[index].starts) - 1 for index in block]
        shards = np.repeat(np.array(block, dtype=np.int32), counts)
        sentences = np.concatenate([np.arange(count) for count in counts])
        if self.shuffle:
            order = self._random(1 + block[0]).permutation(len(sentences))
            shards, sentences = shards[order], sentences[order]
        return shards, sentences

    def _random(self, stream: int) -> np.random.Generator:
        key = np.array([self.seed, self._epoch], dtype=np.uint64)
        return np.random.Generator(np.random.Philox(key=key, counter=np.array([0, 0, 0, stream], dtype=np.uint64)))

    def _next_sentence(self, checked: Set[int]) -> List[int]:
        """Return the row state at the start of the next sentence; turn to the next block or epoch behind the last one.

        Args:
            checked: shards that are known to be unchanged; the sentence's is looked at and added.
        """
        if self._order is None:
            self._order = self._open_block()
        shards, sentences = self._order
        index, sentence = int(shards[self._sentence]), sentences[self._sentence]
        if index not in checked:
            self._check_unchanged(index)
            checked.add(index)
        starts = self.shards[index].starts
        first, last = int(starts[sentence]), int(starts[sentence + 1]) - 1
        self._sentence += 1
        if self._sentence == len(sentences):
            self._order, self._sentence, self._block = None, 0, self._block + 1
            if self._block == len(self._blocks):
                self._blocks, self._block, self._epoch = None, 0, self._epoch + 1
        return [index, first, last, last - first]

    def _pieces(self, last_epoch: Optional[int]) -> np.ndarray:
        """Advance all rows by one batch; return this process's runs of words, int64 `[runs, 4]`.

        A run is shard, first place forward, first place backward, length; shard -1 is padding, which a
        row gets once the sentences of `last_epoch` are used up.
        """
        checked = {state[0] for state in self._row_state}
        for index in checked:
            self._check_unchanged(index)
        pieces: List[List[int]] = []
        begin = end = 0
        for row, state in enumerate(self._row_state):
            if row == self.first_row:
                begin = len(pieces)
            need = self.num_steps
            while need:
                shard, ahead, back, left = state
                if not left:
                    if last_epoch is not None and self._epoch > last_epoch:
                        pieces.append([-1, 0, 0, need])
                        break
                    state = self._next_sentence(checked)
                    continue
                take = left if left < need else need
                pieces.append([shard, ahead, back, take])
                state = [shard, ahead + take, back - take, left - take]
                need -= take
            self._row_state[row] = state
            if row == self.first_row + self.batch_size - 1:
                end = len(pieces)
        return np.array(pieces[begin:end], dtype=np.int64)

    def _check_unchanged(self, index: int) -> None:
        """Raise `InputError` if a shard's text or its cache is not what it was when it was opened.

        What is mapped into memory must not be touched when its file has become shorter: the process would be ended.
        """
        for number, (path, stamp) in enumerate(self.shards[index].files):
            if _stamp(path) == stamp:
                continue
            if number == 0 and path.is_file():
                # Touched or copied back, but the same text?
                now = _stamp(path)
                if _shard_key(path, self.vocabulary) == self.shards[index].key:
                    self.shards[index].files[0] = (path, now)
                    continue
            raise InputError(
                f"{path} {'changed' if path.exists() else 'vanished'} while it was being used; "
                + ("put it back as it was, then resume" if number == 0 else "resume, it will be made anew:")
                + " from the last checkpoint with --load_dir auto"
            )

    def _gather(self, pieces: np.ndarray) -> Tuple[Batch, np.ndarray]:
        shard, ahead, back, lengths = pieces.T
        offset = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        ahead, back = np.repeat(ahead, lengths) + offset, np.repeat(back, lengths) - offset
        places = (ahead, ahead + 1, back, back - 1)
        used = np.unique(shard)
        if len(used) == 1 and used[0] >= 0:
            tokens = self.shards[used[0]].tokens
            arrays = [tokens[place].astype(np.int64) for place in places]
            mask = np.ones(len(offset), dtype=bool)
        else:
            shard = np.repeat(shard, lengths)
            arrays = [np.zeros(len(offset), dtype=np.int64) for _ in places]
            for index in used[used >= 0]:
                here = shard == index
                for array, place in zip(arrays, places):
                    array[here] = self.shards[index].tokens[place[here]]
            mask = shard >= 0
        x, y, x_reverse, y_reverse = (array.reshape(self.batch_size, self.num_steps) for array in arrays)
        return (x, y, x_reverse, y_reverse), mask.reshape(self.batch_size, self.num_steps)

    def __iter__(self) -> Iterator[Batch]:
        while True:
            yield self._gather(self._pieces(last_epoch=None))[0]

    def single_pass(self) -> Iterator[Tuple[Batch, np.ndarray]]:
        """Yield `(batch, mask)` from the start of the text until every word was predicted exactly once.

        The mask, bool `[batch_size, num_steps]`, is False at padding. All processes get the same number of
        batches.
        """
        self._rewind()
        while self._epoch == 0 or any(state[3] for state in self._row_state):
            yield self._gather(self._pieces(last_epoch=0))

    def state_dict(self) -> Dict[str, np.ndarray]:
        """Return the exact position of the whole global batch; the same in every process."""
        return {
            "position": np.array([self._epoch, self._block, self._sentence], dtype=np.int64),
            "rows": np.array(self._row_state, dtype=np.int64),
            "order": np.array([self.shuffle, self.seed, self.mixed], dtype=np.int64),
            "corpus": np.array(self.corpus),
        }

    def load_state_dict(self, state: Dict[str, np.ndarray]) -> None:
        """Go on at a position, whatever the number of processes was then.

        Raises:
            InputError: the text, the vocabulary, the shuffling or the size of the global batch is another one, or
                it is no position at all.
        """
        try:
            corpus, rows, (*order, mixed), (epoch, block, sentence) = (
                str(state["corpus"]),
                state["rows"].astype(np.int64, casting="safe"),
                [*state["order"].tolist(), 0][:3],  # older versions did not mix shards
                state["position"].astype(np.int64, casting="safe").tolist(),
            )
        except (KeyError, ValueError, TypeError) as error:
            raise InputError(f"this is no position of a reader: {error}")
        if corpus != self.corpus:
            raise InputError(
                "the training text or the vocabulary is not the one this position belongs to; "
                "to train on other text use --load_pretraining_params (weights only, a new run)"
            )
        if len(rows) != self.rows:
            raise InputError(
                f"the position is for a global batch of {len(rows)} rows, now it is {self.rows}; "
                "keep batch_size × processes × accumulate as it was"
            )
        if order != [int(self.shuffle), self.seed]:
            raise InputError(f"shuffle and seed were {order}, now they are {[int(self.shuffle), self.seed]}")
        self._epoch, self._block, self._sentence, self.mixed = epoch, block, sentence, mixed
        self._blocks = self._order = None
        self._row_state = rows.tolist()
        self._check_position(rows)

    def _check_position(self, rows: np.ndarray) -> None:
        """Raise `InputError` if the position lies outside the text."""
        inside = rows.shape == (self.rows, 4) and self._epoch >= 0 and 0 <= self.mixed
        if inside:
            self._blocks = self._make_blocks()
            inside = 0 <= self._block < len(self._blocks) and 0 <= self._sentence < len(self._open_block()[1])
            shard, ahead, back, left = rows.T
            inside = inside and (rows >= 0).all() and (shard < len(self.shards)).all()
        if inside:
            words = np.array([len(self.shards[index].tokens) for index in shard])
            inside = (ahead + left < words).all() and (back >= left).all() and (back < words).all()
        if not inside:
            raise InputError("the position lies outside the training text")
