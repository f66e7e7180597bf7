"""Turn every line of a text into ELMo vectors.

    python embed.py --checkpoint checkpoints/step_00000100 --input data/dev/part_00000.txt --output vectors.npz
    echo '我爱北京' | python embed.py --checkpoint checkpoints/step_00000100 --input - --segment \\
        --output vectors.npz --layers top --pool mean --dtype float16
    python embed.py --checkpoint fluid_folder --vocab_path vocabulary.txt --input text.txt --output vectors.npz

A checkpoint is a folder of train.py, a folder of Fluid variables, or a .tar.gz of one or its address. The
text has one sentence a line, words apart by white space (with --segment: any text, cut as the model's own was, or
where nobody knows how, along the words of its vocabulary).

The output holds one array for each line, named by its number from 0: `numpy.load("vectors.npz")["0"]`. Its
shape is [layers, words, size] for --layers all, else [words, size]; --pool takes the words away. size is twice
the embedding size: forward, then backward. A line without words has an array of 0 words, pooled: zeros. The
file appears under its name when it is complete.

For large texts, --output vectors.npy writes one array of all words, [words, size], for --layers all
[words, layers, size], and beside it where each line starts:

    vectors, offsets = numpy.load("vectors.npy", mmap_mode="r"), numpy.load("vectors.offsets.npy")
    vectors[offsets[7]:offsets[8]]  # of line 7

In Python:

    encoder, vocabulary = load_encoder("checkpoints/step_00000100")
    for vectors in embed([["我", "爱", "北京"], ["你好"]], encoder, vocabulary, layers="mix"):
        print(vectors.shape)

Top to bottom: sentences to vectors, the text, the command.
"""

import sys
import tempfile
import time
from argparse import RawDescriptionHelpFormatter
from pathlib import Path
from typing import Callable, Iterable, Iterator, List, Optional, Sequence, Tuple

from elmo_chinese import runtime
from elmo_chinese.command import OptionError, command
from elmo_chinese.console import Progress, duration, say, size_text
from elmo_chinese.files import check_apart
from elmo_chinese.storage.vectors import Counts, targets_of, writing
from elmo_chinese.text.reading import InputError, check_sentences, read_stdin, read_text, words_of
from elmo_chinese.text.segmenter import segmenter_of
from elmo_chinese.text.vocabulary import Vocabulary, unknown_share
from elmo_chinese.training.flags import Parser, boolean, positive_int
from elmo_chinese.training.session import choose_device

import numpy as np
import paddle

from bilm import ElmoEncoder, load_encoder

LAYERS = ("all", "top", "mix")
POOLS = ("none", "mean", "max")
DTYPES = ("float32", "float16")
BATCH_TOKENS = 4096
# Sentences are sorted by length inside a window of so many batches, or fewer if its vectors would take more
# than so many bytes: it is what is kept in memory.
WINDOW_BATCHES = 16
WINDOW_BYTES = 2**28


# --- sentences to vectors ---


def embed(
    sentences: Iterable[Sequence[str]],
    encoder: ElmoEncoder,
    vocabulary: Vocabulary,
    layers: str = "mix",
    pool: str = "none",
    dtype: str = "float32",
    batch_tokens: int = BATCH_TOKENS,
) -> Iterator[np.ndarray]:
    """Yield the vectors of sentences, in their order, whatever the batches they are computed in.

    Args:
        sentences: lists of words; may be a generator without end, only a window of them is held at a time.
        encoder, vocabulary: as `bilm.load_encoder` returns them.
        layers: "all" of them, words first; the "top" LSTM layer; or the trained "mix" (untrained: the average).
        pool: "none", or the "mean" or "max" over the words of a sentence.
        dtype: "float32" or "float16".
        batch_tokens: so many words, padding included, are computed at once; lower it when memory is short. A
            longer sentence is computed alone.

    Returns:
        for each sentence an array as `shape` says; a sentence without words has 0 words, or zeros if pooled.

    Raises:
        ValueError: an option or a sentence that cannot be (a string is none: it would be read as a list of
            characters), or a vocabulary that is not the encoder's.
    """
    if isinstance(sentences, str):
        raise ValueError("sentences must be lists of words, got one string; split it into words and put it in a list")
    if vocabulary.size != encoder.config["vocab_size"]:
        raise ValueError(f"the vocabulary has {vocabulary.size} words, the encoder {encoder.config['vocab_size']}")
    return embed_ids(_encoded(sentences, vocabulary), encoder, layers, pool, dtype, batch_tokens)


def embed_ids(
    sentences: Iterable[np.ndarray],
    encoder: ElmoEncoder,
    layers: str = "mix",
    pool: str = "none",
    dtype: str = "float32",
    batch_tokens: int = BATCH_TOKENS,
    on_batch: Callable[[int], None] = lambda words: None,
) -> Iterator[np.ndarray]:
    """Yield the vectors of sentences given as word ids, an int array `[words]` each; see `embed`.

    `on_batch` is called after each batch with the number of words in it.
    """
    for name, value, known in [("layers", layers, LAYERS), ("pool", pool, POOLS), ("dtype", dtype, DTYPES)]:
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")
    if batch_tokens < 1:
        raise ValueError(f"batch_tokens must be positive, got {batch_tokens}")
    if layers == "mix" and len(encoder.mixes) > 1:
        raise ValueError(f"layers='mix' wants an encoder with one mix, got {len(encoder.mixes)}")
    return _embed_ids(sentences, encoder, layers, pool, dtype, batch_tokens, on_batch)


def _embed_ids(sentences, encoder, layers, pool, dtype, batch_tokens, on_batch):
    word_bytes = np.dtype(dtype).itemsize * int(np.prod(shape(encoder, 1, layers, pool)))
    limit = min(WINDOW_BATCHES * batch_tokens, WINDOW_BYTES // word_bytes)
    for window in _windows(sentences, limit):
        vectors: List[Optional[np.ndarray]] = [np.zeros(shape(encoder, 0, layers, pool), dtype) for _ in window]
        for rows in batches([len(ids) for ids in window], batch_tokens, 2 if encoder.boundaries else 0):
            computed = _batch_vectors(encoder, [window[row] for row in rows], layers)
            for row, array in zip(rows, computed):
                vectors[row] = _pooled(array, pool).astype(dtype)
            on_batch(sum(len(window[row]) for row in rows))
        vectors.reverse()
        while vectors:  # each is let go of as soon as it is taken, before the next window is computed
            yield vectors.pop()


def shape(encoder: ElmoEncoder, words: int, layers: str, pool: str) -> Tuple[int, ...]:
    """Return the shape of the vectors of a sentence of so many words."""
    count = (len(encoder.lstm.forward_layers) + 1,) if layers == "all" else ()
    return (*count, *((words,) if pool == "none" else ()), encoder.embedding_dim)


def _encoded(sentences, vocabulary):
    for number, words in enumerate(sentences):
        wrong = [words] if isinstance(words, str) else [word for word in words if not isinstance(word, str)]
        if wrong:
            raise ValueError(f"sentence {number} must be a list of words (strings), got {wrong[0]!r}")
        yield np.array(vocabulary.encode(words), dtype=np.int64)


def _windows(sentences, limit):
    """Yield lists of sentences, each as many as have `limit` words; an empty one counts as a word."""
    window, words = [], 0
    for ids in sentences:
        window.append(ids)
        words += max(1, len(ids))
        if words >= limit:
            yield window
            window, words = [], 0
    if window:
        yield window


def batches(lengths: Sequence[int], batch_tokens: int, extra: int = 0) -> Iterator[List[int]]:
    """Yield the places of the sentences that are computed together.

    Args:
        lengths: words of each sentence; those without any are left out.
        batch_tokens: a batch has at most so many words, padding included, or a single sentence.
        extra: words that are added to each.
    """
    with_words = [place for place, length in enumerate(lengths) if length]
    batch: List[int] = []
    # The longest come first: if memory is too short, that shows at once.
    for place in sorted(with_words, key=lambda place: -lengths[place]):
        if batch and (len(batch) + 1) * (lengths[batch[0]] + extra) > batch_tokens:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


@paddle.no_grad()
def _batch_vectors(encoder, sentences, layers):
    """Return for each sentence float32 `[layers, words, size]`, or `[words, size]` of one layer or the mix."""
    training = encoder.training
    encoder.eval()
    try:
        longest = max(map(len, sentences))
        lengths = np.array([len(ids) for ids in sentences])
        padded = np.zeros([len(sentences), longest], dtype=np.int64)
        padded[np.arange(longest) < lengths[:, None]] = np.concatenate(sentences)
        chosen = _choose(encoder, encoder.layers(paddle.to_tensor(padded), paddle.to_tensor(lengths)), layers)
        return [chosen[..., row, :length, :] for row, length in enumerate(lengths)]
    finally:
        if training:
            encoder.train()


def _choose(encoder, stacked, layers):
    """Return of what `ElmoEncoder.layers` returned what is wanted, as an array."""
    if layers == "all":
        return stacked.numpy()
    return (stacked[-1] if layers == "top" else encoder.mix(stacked)).numpy()


def _pooled(vectors, pool):
    if pool == "none":
        return vectors
    return vectors.mean(axis=-2) if pool == "mean" else vectors.max(axis=-2)


# --- the text ---


class Text:
    """The sentences of a file as word ids, in a temporary file of 4 bytes a word.

    So words are counted before the first is computed, text is cut into words once, a pipe is read once, and a
    text may be larger than memory.

    Args:
        path: UTF-8 text, one sentence a line; "-" for standard input.
        vocabulary: the vocabulary.
        split: cuts a line into words.

    Attributes:
        lines, words: how many. empty: lines without words. unknown: words that are not in the vocabulary.

    Iterating gives int32 `[words]` for each line.

    Raises:
        InputError: what `read_text` and `check_sentences` raise, no line at all, no room for the temporary file.
    """

    def __init__(self, path: str, vocabulary: Vocabulary, split: Callable[[str], List[str]]):
        self.lines = self.words = self.empty = self.unknown = 0
        self._file = tempfile.TemporaryFile()
        for block in read_stdin(2**18) if path == "-" else read_text(path, 2**18):
            if split is words_of and not self.lines:
                check_sentences(path, block)
            for line in block:
                self._add(vocabulary.encode(split(line)), vocabulary.unknown)
        if not self.lines:
            raise InputError(f"{'standard input' if path == '-' else path} is empty; one sentence a line is expected")

    def _add(self, ids, unknown):
        self.lines += 1
        self.words += len(ids)
        self.empty += not ids
        self.unknown += ids.count(unknown)
        try:
            self._file.write(np.array([len(ids), *ids], dtype="<i4").tobytes())
        except OSError as error:
            raise InputError(f"cannot write to {tempfile.gettempdir()}: {error.strerror}; set TMPDIR to another folder")

    def __iter__(self) -> Iterator[np.ndarray]:
        self._file.seek(0)
        for _ in range(self.lines):
            count = int(np.frombuffer(self._file.read(4), dtype="<i4")[0])
            yield np.frombuffer(self._file.read(4 * count), dtype="<i4")

    def close(self) -> None:
        """Give the temporary file back."""
        self._file.close()


# --- the command ---


def load(options) -> Tuple[ElmoEncoder, Vocabulary]:
    """Return encoder and vocabulary; what does not fit is found before the parameters are read."""
    more = {} if options.boundaries is None else {"boundaries": options.boundaries}
    encoder, vocabulary = load_encoder(options.checkpoint, options.vocab_path, **more)
    if vocabulary is None:
        raise OptionError(
            f"{options.checkpoint} has no vocabulary in it (Fluid folders have none); give its file with --vocab_path"
        )
    return encoder, vocabulary


def counts_of(text: Text, pool: str) -> Counts:
    """Return how many lines and rows of vectors a text has."""
    return Counts(text.lines, text.words if pool == "none" else text.lines, pool != "none")


def report_start(options, encoder, text, device) -> None:
    """Log what is about to be computed."""
    config = encoder.config
    one = ", ".join(str(size or "words") for size in shape(encoder, 0, options.layers, options.pool))
    say(f"device      {device} ({runtime.SETTINGS})")
    say(
        f"network     {config['num_layers']} layers, embed {config['embed_size']}, hidden {config['hidden_size']}, "
        f"vocabulary {config['vocab_size']}, {'with' if encoder.boundaries else 'without'} <S> and </S>"
    )
    advice = "" if options.segment else "--segment cuts raw text as the model's own was; or "
    advice += "is the vocabulary one of other text?"
    say(f"text        {text.lines:,} lines ({text.empty:,} empty), {text.words:,} words")
    say("unknown     " + unknown_share(text.unknown, text.words, advice))
    say(f"output      [{one}] of {options.dtype} a line")


def run(options) -> None:
    """The command: output, model, text, vectors."""
    output = Path(options.output)
    check_apart("--output", targets_of(output), [options.input, options.checkpoint])
    with writing(output) as write:
        device = choose_device(options.use_gpu)
        encoder, vocabulary = load(options)
        text = Text(options.input, vocabulary, segmenter_of(vocabulary).cut if options.segment else words_of)
        report_start(options, encoder, text, device)
        start, progress = time.perf_counter(), Progress(text.words, "words")
        how = (options.layers, options.pool, options.dtype, options.batch_tokens, progress.add)
        write(embed_ids(text, encoder, *how), counts_of(text, options.pool))
    text.close()
    seconds = time.perf_counter() - start
    say(
        f"done        {output} ({size_text(output.stat().st_size)}) in {duration(seconds)}: "
        f"{text.lines / seconds:,.0f} sentences/s, {text.words / seconds:,.0f} words/s"
    )


def make_parser() -> Parser:
    """Return the parser of the command."""
    parser = Parser(description=__doc__, allow_abbrev=False, formatter_class=RawDescriptionHelpFormatter)
    switch = dict(type=boolean, nargs="?", const=True, metavar="true|false")
    flag = parser.add_argument
    flag("--checkpoint", required=True, help="folder of a pretrained model, a .tar.gz of one, or its address")
    flag("--vocab_path", help="the model's vocabulary; needed for Fluid folders, our checkpoints have their own")
    flag("--input", required=True, help="UTF-8 text, one sentence a line; - reads standard input")
    flag("--output", required=True, help="a name that ends in .npz, in .npy for large texts, or in .h5 with h5py")
    flag("--segment", default=False, help="cut each line into words as the model's own text was", **switch)
    flag("--layers", choices=LAYERS, default="mix", help="the trained mix, the top layer, or all (default: mix)")
    flag("--pool", choices=POOLS, default="none", help="one vector a sentence: mean or max over its words")
    flag("--dtype", choices=DTYPES, default="float32", help="float16 halves the file")
    flag("--boundaries", help="run the LSTMs over <S> … </S>, as in pretraining; default: the encoder's", **switch)
    how_many = f"words computed at once, padding included; lower it when memory is short (default: {BATCH_TOKENS})"
    flag("--batch_tokens", type=positive_int, default=BATCH_TOKENS, help=how_many)
    flag("--use_gpu", help="default: use a GPU if there is one", **switch)
    return parser


def main(arguments=None) -> None:
    """Run from the command line; user errors end with a message and exit code 1."""
    options = make_parser().parse_args(sys.argv[1:] if arguments is None else arguments)
    with command(options.output, f"interrupted; {options.output} was not written"):
        run(options)


if __name__ == "__main__":
    main()
