"""From text to batches of both directions.

1. Text is one sentence a line, words apart by any white space, in one or many files. It is encoded once into word ids
   on the disk, which are memory-mapped (`elmo_chinese/text/token_cache.py`).
2. Every row of a batch is an endless stream of sentences. A row that has used up its sentence takes the
   next one in file order, so no padding is needed:

        sentence stream     <S> a b </S>   <S> c d e </S>   <S> f </S>   <S> g h </S> …
        batch of 2 × 3      row 0: a b </S>    then <S> f …     (x lags y by one word)
                            row 1: c d e       then </S> <S> …

   The backward direction reads the same sentences at the same places, each from its end.
3. Shuffled, the files come in an order of chance, in blocks of so many that they have `MIXED` words together, and the
   sentences of a block are mixed: a language model that gets one kind of text after the other forgets the first. A file
   of more words is several parts.
"""

from pathlib import Path
from typing import Dict, Iterator, List, Optional, Sequence, Tuple, Union

from elmo_chinese.text import token_cache
from elmo_chinese.text.reading import InputError, PathLike, find_files
from elmo_chinese.text.vocabulary import Vocabulary

import numpy as np

Batch = Tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
MIXED = 50_000_000  # words; with 20 a sentence, what says their order takes 20 MB


class BidirectionalReader:
    """Batches of word ids in both directions, for one process of several.

    Args:
        paths: glob pattern, folder, or list of text files; read in sorted order.
        vocabulary: the vocabulary.
        batch_size: rows of this process. The global batch is `batch_size × world_size` rows; what is in
            it does not depend on how many processes share it.
        num_steps: words per row and batch.
        shuffle: draw the order of the sentences anew for each epoch, mixed over files.
        seed: of the shuffling, which is a pure function of seed and epoch.
        rank, world_size: this process takes rows `rank × batch_size` to `(rank + 1) × batch_size`.
        cache_dir: where encoded text is kept; default: a folder `.token_cache` beside the first file.
        verify: read text and cache in any case, see `token_cache.encode`.

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
        verify: bool = False,
    ):
        if batch_size < 1 or num_steps < 1:
            raise ValueError(f"batch_size and num_steps must be positive, got {batch_size} and {num_steps}")
        files = find_files(paths)
        cache = Path(cache_dir) if cache_dir else files[0].parent / ".token_cache"
        self.text = token_cache.encode(files, vocabulary, cache, verify)
        self.corpus = self.text.corpus
        self.vocabulary = vocabulary
        self.batch_size, self.num_steps = batch_size, num_steps
        self.shuffle, self.seed, self.mixed = shuffle, seed, MIXED
        self.rows, self.first_row = batch_size * world_size, batch_size * rank
        self.tokens_per_epoch = len(self.text.tokens) - len(self.text.starts) + 1
        self._checked = 0  # the file of text that was looked at last
        self._rewind()

    def _rewind(self) -> None:
        # Where the next sentence comes from …
        self._epoch = self._block = self._sentence = 0
        self._blocks: Optional[List[List[int]]] = None
        self._order: Optional[Sequence[int]] = None
        # … and for each row: places of the next word forward and backward, words left in its sentence.
        self._row_state = [[0, 0, 0] for _ in range(self.rows)]

    def _make_blocks(self) -> List[List[int]]:
        """Return the parts of each block of this epoch."""
        starts, bounds = self.text.starts, self.text.first_sentences
        for number in np.flatnonzero(np.diff(starts[bounds]) > self.mixed):  # a file that is a part would be too large
            first, last = self.text.first_sentences[number : number + 2]
            pieces = -(-int(starts[last] - starts[first]) // self.mixed)
            bounds = np.union1d(bounds, np.linspace(first, last, pieces + 1).astype(np.int64))
        self._bounds = bounds.tolist()
        words = np.diff(starts[bounds]).tolist()
        if not self.shuffle:
            return [[part] for part in range(len(words))]
        blocks, room = [], 0
        for part in self._random(0).permutation(len(words)).tolist():
            if words[part] > room or not blocks:
                blocks.append([])
                room = self.mixed
            blocks[-1].append(part)
            room -= words[part]
        return blocks

    def _open_block(self) -> Sequence[int]:
        """Return the numbers of the sentences of the current block, in their order."""
        if self._blocks is None:
            self._blocks = self._make_blocks()
        block = self._blocks[self._block]
        ranges = [range(self._bounds[part], self._bounds[part + 1]) for part in block]
        if not self.shuffle:
            return ranges[0]
        sentences = np.concatenate([np.arange(some.start, some.stop) for some in ranges])
        return sentences[self._random(1 + block[0]).permutation(len(sentences))]

    def _random(self, stream: int) -> np.random.Generator:
        key = np.array([self.seed, self._epoch], dtype=np.uint64)
        return np.random.Generator(np.random.Philox(key=key, counter=np.array([0, 0, 0, stream], dtype=np.uint64)))

    def _next_sentence(self) -> List[int]:
        """Return the row state at the start of the next sentence; behind the last, turn to the next block or epoch."""
        if self._order is None:
            self._order = self._open_block()
        sentence = int(self._order[self._sentence])
        first, last = int(self.text.starts[sentence]), int(self.text.starts[sentence + 1]) - 1
        self._sentence += 1
        if self._sentence == len(self._order):
            self._order, self._sentence, self._block = None, 0, self._block + 1
            if self._block == len(self._blocks):
                self._blocks, self._block, self._epoch = None, 0, self._epoch + 1
        return [first, last, last - first]

    def _pieces(self, last_epoch: Optional[int]) -> np.ndarray:
        """Advance all rows by one batch; return this process's runs of words, int64 `[runs, 3]`.

        A run is first place forward, first place backward, length; place -1 is padding, which a row gets once the
        sentences of `last_epoch` are used up.
        """
        self._check_unchanged()
        pieces: List[List[int]] = []
        begin = end = 0
        for row, state in enumerate(self._row_state):
            if row == self.first_row:
                begin = len(pieces)
            need = self.num_steps
            while need:
                ahead, back, left = state
                if not left:
                    if last_epoch is not None and self._epoch > last_epoch:
                        pieces.append([-1, -1, need])
                        break
                    state = self._next_sentence()
                    continue
                take = left if left < need else need
                pieces.append([ahead, back, take])
                state = [ahead + take, back - take, left - take]
                need -= take
            self._row_state[row] = state
            if row == self.first_row + self.batch_size - 1:
                end = len(pieces)
        return np.array(pieces[begin:end], dtype=np.int64)

    def _check_unchanged(self) -> None:
        """Raise `InputError` if the cache is not what it was, or a file of text, the next one with each batch."""
        self.text.check_cache()
        self._checked = (self._checked + 1) % len(self.text.files)
        self.text.check_file(self._checked, self.vocabulary)

    def _gather(self, pieces: np.ndarray) -> Tuple[Batch, np.ndarray]:
        ahead, back, lengths = pieces.T
        mask = np.repeat(ahead >= 0, lengths)
        offset = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        ahead, back = np.repeat(ahead, lengths) + offset, np.repeat(back, lengths) - offset
        places = (ahead, ahead + 1, back, back - 1)
        shape = (self.batch_size, self.num_steps)
        x, y, x_reverse, y_reverse = (
            (self.text.tokens[place * mask] * mask).astype(np.int64).reshape(shape) for place in places
        )
        return (x, y, x_reverse, y_reverse), mask.reshape(shape)

    def __iter__(self) -> Iterator[Batch]:
        while True:
            yield self._gather(self._pieces(last_epoch=None))[0]

    def single_pass(self) -> Iterator[Tuple[Batch, np.ndarray]]:
        """Yield `(batch, mask)` from the start of the text until every word was predicted exactly once.

        The mask, bool `[batch_size, num_steps]`, is False at padding. All processes get the same number of
        batches.
        """
        self._rewind()
        while self._epoch == 0 or any(state[2] for state in self._row_state):
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
                *(state[name].astype(np.int64, casting="safe") for name in ("rows", "order", "position")),
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
        if list(order) != [int(self.shuffle), self.seed]:
            raise InputError(f"shuffle and seed were {list(order)}, now they are {[int(self.shuffle), self.seed]}")
        self._epoch, self._block, self._sentence, self.mixed = map(int, (epoch, block, sentence, mixed))
        self._blocks = self._order = None
        self._row_state = rows.tolist()
        self._check_position(rows)

    def _check_position(self, rows: np.ndarray) -> None:
        """Raise `InputError` if the position lies outside the text."""
        inside = rows.shape == (self.rows, 3) and self._epoch >= 0 and self.mixed > 0
        if inside:
            self._blocks = self._make_blocks()
            inside = 0 <= self._block < len(self._blocks) and 0 <= self._sentence < len(self._open_block())
        if inside:
            ahead, back, left = rows.T
            words = len(self.text.tokens)
            inside = (
                (rows >= 0).all() and (ahead + left < words).all() and (back >= left).all() and (back < words).all()
            )
        if not inside:
            raise InputError("the position lies outside the training text")
