"""A tagger: how text becomes tagged tokens, and what its folder holds.

A folder is a checkpoint (`checkpoint.py`) that needs no other file:

    model.pdparams     all parameters, those of the biLM too
    vocabulary.txt     the words of the word embedding by id, one a line
    state.npz          the dictionary that text is cut by, `word count` on each line; the biLM's vocabulary
    checkpoint.json    sizes ("model", "elmo"), tag set, table of replacements, how text is cut and words are looked up
                       ("text"), flags, dev scores, versions
"""

import itertools
import json
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Sequence, Union

from elmo_chinese.files import damage
from elmo_chinese.network import kernels
from elmo_chinese.storage import checkpoint, contents
from elmo_chinese.storage.checkpoint import CheckpointError
from elmo_chinese.text.reading import InputError
from elmo_chinese.text.vocabulary import Vocabulary
from elmo_chinese.training.batches import batches_by_length, pad
from elmo_chinese.training.layers import (
    MAX_SENTENCES,
    MAX_TOKENS,
    check_sizes,
    elmo_state,
    elmo_vocabulary_of,
    encoder_info,
    fill,
)

import numpy as np
import paddle

from bilm import ElmoEncoder
from lac import dictionaries
from lac.crf import viterbi
from lac.dictionaries import Dictionaries, last_known_piece, lines_of, read_table, read_tags
from lac.lines import Span, spans
from lac.network import Tagger

# A longer text is tagged in pieces of so many tokens, for the same reason; ELMo holds all its layers of a piece.
LONGEST_TEXT, LONGEST_ELMO_TEXT = 20_000, MAX_TOKENS
SENTENCE_ENDS = frozenset("。！？!?\n")
# The files that lac.export makes with paddle.jit.save: the program and its tagger.pdiparams. Paddle 2 writes and reads
# tagger.pdmodel, Paddle 3 tagger.json; neither reads the other's.
PROGRAM = "tagger"
PROGRAM_FILES = [f"{PROGRAM}.pdmodel", f"{PROGRAM}.json"]
PROGRAM_FILE = PROGRAM_FILES[0 if paddle.__version__.startswith("2.") else 1]
ELMO_VOCABULARY = "elmo_vocabulary.txt"  # with ELMo
# How text is cut and words are looked up (`Dictionaries.info`), and the dictionary it is cut by.
TEXT_FILE, DICTIONARY = "text.json", "dictionary.txt"
EXPORTED = [PROGRAM_FILE, f"{PROGRAM}.pdiparams", "tag.dic", "q2b.dic", "vocabulary.txt", TEXT_FILE, DICTIONARY]


class Model(NamedTuple):
    """Everything it takes to tag text.

    Attributes:
        decode: function of word ids and lengths (as in `Tagger.forward`) and of ELMo ids or layers → best tags,
            int64 array `[batch, words]`.
        text: how text is cut and looked up, and what the tags are.
        elmo_vocabulary: of the biLM, None without ELMo.
        tagger: the network; None if the model comes from `lac.export`.
    """

    decode: Callable
    text: Dictionaries
    elmo_vocabulary: Optional[Vocabulary]
    tagger: Optional[Tagger]


class Tagged(NamedTuple):
    """The tokens of a text, a tag for each (`lac.lines.to_bio`) and, in mode rank, a weight for each."""

    tokens: List[str]
    bio: List[str]
    weights: Optional[List[int]] = None

    def spans(self) -> List[Span]:
        """Return the words that the tokens make up; all characters are in one."""
        return spans(*self)


class Encoded(NamedTuple):
    """Word ids of sentences, int64 `[words]` each; `elmo` is None without ELMo."""

    words: List[np.ndarray]
    elmo: Optional[List[np.ndarray]]
    lengths: np.ndarray


def encode(model: Model, sentences: Iterable[Sequence[str]]) -> Encoded:
    """Look up the tokens of sentences."""
    sentences = list(sentences)
    words, elmo = [model.text.word_ids(tokens) for tokens in sentences], None
    if model.elmo_vocabulary:
        look_up = last_known_piece(model.elmo_vocabulary, model.text.table)
        elmo = [np.array([look_up(token) for token in tokens], dtype=np.int64) for tokens in sentences]
    return Encoded(words, elmo, np.array([len(tokens) for tokens in sentences], dtype=np.int64))


def decoder(tagger: Tagger) -> Callable:
    """Return `Model.decode` of a network, in Paddle operators."""

    @paddle.no_grad()
    def decode(word_ids, lengths, elmo=None):
        return viterbi(tagger(word_ids, lengths, elmo).numpy(), lengths.numpy(), tagger.crfw.numpy())

    return decode


def predict_ids(
    model: Model, encoded: Encoded, layers: Optional[Callable] = None, rank: int = 0, world_size: int = 1
) -> List[np.ndarray]:
    """Return the tag ids of sentences of at least one word.

    Args:
        layers: function of sentences' numbers → the ELMo layers of their batch, from a cache; None: from ids.
        rank, world_size: this process does its share of the batches; the other sentences are all zeros.
    """
    found = [np.zeros(length, dtype=np.int64) for length in encoded.lengths]
    network = model.tagger
    in_cpp = network is not None and kernels.library() is not None
    if in_cpp and encoded.elmo is None:  # which makes its own batches
        batches = [np.arange(rank, len(found), world_size)] if rank < len(found) else []
    else:
        batches = list(batches_by_length(encoded.lengths, MAX_TOKENS, MAX_SENTENCES))[rank::world_size]
    for batch in batches:
        words, lengths, elmo = [encoded.words[number] for number in batch], encoded.lengths[batch], None
        if encoded.elmo is not None:
            ids = [encoded.elmo[number] for number in batch]
            elmo = layers(batch) if layers else paddle.to_tensor(pad(ids))
        if in_cpp:
            vectors = None if elmo is None else _vectors(network.encoder, elmo, lengths)
            flat, ends = network.best_tags(np.concatenate(words), lengths, vectors), np.cumsum(lengths).tolist()
            paths = [flat[start:end] for start, end in zip([0, *ends], ends)]
        else:
            paths = model.decode(paddle.to_tensor(pad(words)), paddle.to_tensor(lengths), elmo)
        for number, path, length in zip(batch, paths, lengths):
            found[number] = path[:length]
    return found


@paddle.no_grad()
def _vectors(encoder: ElmoEncoder, elmo: paddle.Tensor, lengths: np.ndarray) -> np.ndarray:
    """Return the ELMo vectors of the words of sentences, one sentence after the other, `[words, 2·embed]`."""
    layers = encoder.layers(elmo, paddle.to_tensor(lengths)) if len(elmo.shape) == 2 else elmo
    vectors = encoder.mix(layers).numpy()
    return vectors[np.arange(vectors.shape[1]) < lengths[:, None]]


def split_long(model: Model, tokens: List[str]) -> List[List[str]]:
    """Split the tokens of a long text, at the end of a sentence if there is one; a text without tokens has no piece."""
    pieces, longest = [], LONGEST_ELMO_TEXT if model.elmo_vocabulary else LONGEST_TEXT
    while len(tokens) > longest:
        ends = (place for place in range(longest, 0, -1) if tokens[place - 1] in SENTENCE_ENDS)
        cut = next(ends, longest)
        pieces.append(tokens[:cut])
        tokens = tokens[cut:]
    return pieces + [tokens] if tokens else pieces


def tag_tokens(model: Model, texts: Sequence[str], weigh: Optional[Callable] = None) -> List[Tagged]:
    """Cut and tag texts; the order is kept, and a text gets the same tags alone or among others.

    White space is a word of its own without a label, and no word goes on across it, unless it is tagged like all else.

    Args:
        weigh: function of the word ids and tag ids of sentences → weights of their tokens (`lac/release/rank.py`).
    """
    all_tokens = model.text.segmenter.cut_many(texts)
    shown = all_tokens
    if not model.text.released:
        shown = [[token for token in tokens if not token.isspace()] for tokens in all_tokens]
    pieces = [(number, piece) for number, tokens in enumerate(shown) for piece in split_long(model, tokens)]
    encoded = encode(model, [piece for _, piece in pieces])
    paths = predict_ids(model, encoded) if pieces else []
    weights = weigh(encoded.words, paths) if weigh and pieces else itertools.repeat(None)
    tags: List[List[str]] = [[] for _ in texts]
    weighed: List[List[int]] = [[] for _ in texts]
    for (number, _), path, weight in zip(pieces, paths, weights):
        tags[number] += [model.text.tags[tag] for tag in path.tolist()]
        weighed[number] += weight.tolist() if weigh else []
    tagged = []
    for tokens, of_shown, of_words, weight in zip(all_tokens, shown, tags, weighed):
        if len(of_shown) < len(tokens):
            rest = iter(of_words)
            of_words = ["" if token.isspace() else next(rest) for token in tokens]
        tagged.append(Tagged(tokens, model.text.bio(of_words), weight if weigh else None))
    return tagged


# --- folders ---


def model_info(model: Model) -> Dict[str, Any]:
    """Return what `checkpoint.json` says about a model."""
    return {
        "model": model.tagger.config,
        "elmo": encoder_info(model.tagger.encoder),
        "tags": model.text.tags,
        "q2b": {chr(key): value for key, value in model.text.table.items()},
        "text": model.text.info(),
    }


def model_state(model: Model) -> Dict[str, np.ndarray]:
    """Return what `state.npz` holds of a model."""
    dictionary = np.frombuffer(model.text.segmenter.dictionary.encode("utf-8"), dtype=np.uint8)
    return {"dictionary": dictionary, **elmo_state(model.elmo_vocabulary)}


def vocabulary_text(model: Model) -> str:
    """Return what `vocabulary.txt` holds."""
    return "".join(word + "\n" for word in model.text.words)


def restore(found: checkpoint.Checkpoint, elmo_options: Optional[Dict[str, float]] = None, **options) -> Model:
    """Make a model from a checkpoint.

    Args:
        elmo_options, options: of `ElmoEncoder` and `Tagger`, for training on.

    Raises:
        CheckpointError: it is none of a tagger, or its parts do not belong together.
    """
    info = found.info
    contents.check_kind(found, "tags")
    try:
        text, elmo_vocabulary = _text_of(found), elmo_vocabulary_of(found)
        _check_sizes(found, text, elmo_vocabulary)
        encoder = ElmoEncoder(**info["elmo"], **(elmo_options or {})) if elmo_vocabulary else None
        tagger = Tagger(**info["model"], encoder=encoder, **options)
    except (InputError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{found.path}: {checkpoint.INFO_FILE} does not fit the other files: {error}")
    fill(tagger, found)
    return Model(decoder(tagger), text, elmo_vocabulary, tagger)


def _text_of(found: checkpoint.Checkpoint) -> Dictionaries:
    path, info, state = found.path / checkpoint.VOCABULARY_FILE, found.info, found.state
    tags, table = [str(tag) for tag in info["tags"]], {ord(key): str(value) for key, value in info["q2b"].items()}
    dictionary = bytes(state["dictionary"]).decode("utf-8")
    return dictionaries.restore(info["text"], lines_of(path), tags, table, dictionary, found.path)


def _check_sizes(found, text: Dictionaries, elmo_vocabulary: Optional[Vocabulary]) -> None:
    """Raise `ValueError` if a checkpoint's sizes are not those of its parts; see `check_sizes`."""
    sizes = found.info["model"]
    numbers = sizes["num_words"] * sizes["word_emb_dim"] + sizes["bigru_num"] * 6 * sizes["grnn_hidden_dim"] ** 2
    check_sizes(found, [*sizes.values()], numbers, elmo_vocabulary)
    if [sizes["num_words"], sizes["num_tags"]] != [text.size, len(text.tags)] or len(text.tag_ids) != len(text.tags):
        raise ValueError(f"{sizes} does not fit {text.size} words and {len(text.tag_ids)} tags")


def load_exported(folder: Path) -> Model:
    """Return the model of a folder that `lac.export` made; its program is run, so it must come from people you trust.

    Raises:
        CheckpointError: a file is missing or not as it was written, or the program is of another Paddle.
    """
    if not (folder / PROGRAM_FILE).is_file():
        raise CheckpointError(
            f"{folder} was exported with another Paddle; for this one ({paddle.__version__}) export the model again "
            "with it: python -m lac.export"
        )
    names = EXPORTED + [name for name in [ELMO_VOCABULARY] if (folder / name).exists()]
    problem = damage(folder, names)
    if problem:
        raise CheckpointError(problem)
    program = paddle.jit.load(str(folder / PROGRAM))
    program.eval()

    @paddle.no_grad()
    def decode(word_ids, lengths, elmo=None):
        return program(word_ids, lengths, *([] if elmo is None else [elmo])).numpy()

    elmo_vocabulary = Vocabulary(folder / ELMO_VOCABULARY) if ELMO_VOCABULARY in names else None
    return Model(decode, _exported_text(folder), elmo_vocabulary, None)


def _exported_text(folder: Path) -> Dictionaries:
    tags, table = read_tags(folder / "tag.dic"), read_table(folder / "q2b.dic")
    how, words = json.loads((folder / TEXT_FILE).read_text(encoding="utf-8")), lines_of(folder / "vocabulary.txt")
    counts = (folder / DICTIONARY).read_text(encoding="utf-8")
    return dictionaries.restore(how, words, tags, table, counts, folder / DICTIONARY)


def load(path: Union[str, Path]) -> Model:
    """Return the model of a folder: a checkpoint of lac.train, its run (the best one), or what lac.export made."""
    folder = Path(path)
    if any((folder / name).is_file() for name in PROGRAM_FILES):
        return load_exported(folder)
    return restore(checkpoint.load(checkpoint.resolve(folder)))
