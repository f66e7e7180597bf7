"""A trained tagger: what its folder holds, and how it tags.

A folder is a checkpoint (`checkpoint.py`) that needs no other file:

    model.pdparams     all parameters, those of the biLM too
    vocabulary.txt     the words of the word embedding; of a released model its word.dic
    state.npz          the biLM's vocabulary; of a released model also its small_seg.dic
    checkpoint.json    sizes ("model", "elmo"), tag set, table of replacements, flags, dev scores, versions
"""

import itertools
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple, Union

from elmo_chinese import checkpoint, kernels
from elmo_chinese.checkpoint import CheckpointError
from elmo_chinese.files import damage
from elmo_chinese.pretrained import bilm_numbers
from elmo_chinese.text import InputError, read_lines
from elmo_chinese.vocabulary import Vocabulary

import numpy as np
import paddle

from bilm import ElmoEncoder
from lac import dictionaries
from lac.corpus import cut
from lac.crf import viterbi
from lac.dictionaries import Dictionaries, token_ids
from lac.network import Tagger
from lac.reader import (
    Sentence,
    Table,
    batches_by_length,
    check_gold,
    normalised_ids,
    pad,
    plain_ids,
    read_sentences,
    read_table,
    read_tags,
    vocabulary_from,
)
from lac.released_lines import parser
from lac.scores import OUTSIDE, Scores, Span, released_spans, score, spans

# Tokens of a batch in prediction, padding included, and its sentences: what bounds memory.
MAX_TOKENS, MAX_SENTENCES = 4096, 128
# A longer text is tagged in pieces of so many tokens, for the same reason; ELMo holds all its layers of a piece.
LONGEST_TEXT, LONGEST_ELMO_TEXT = 20_000, MAX_TOKENS
SENTENCE_ENDS = frozenset("。！？!?\n")
# The files that lac.export makes with paddle.jit.save: the program and its tagger.pdiparams. Paddle 2 writes and reads
# tagger.pdmodel, Paddle 3 tagger.json; neither reads the other's.
PROGRAM = "tagger"
PROGRAM_FILES = [f"{PROGRAM}.pdmodel", f"{PROGRAM}.json"]
PROGRAM_FILE = PROGRAM_FILES[0 if paddle.__version__.startswith("2.") else 1]
EXPORTED = [PROGRAM_FILE, f"{PROGRAM}.pdiparams", "tag.dic", "q2b.dic"]
ELMO_VOCABULARY = "elmo_vocabulary.txt"
NETWORK = "network.npz"
EXPORTED_SOMETIMES = [NETWORK, "vocabulary.txt", "word.dic", "small_seg.dic", ELMO_VOCABULARY]


class Model(NamedTuple):
    """Everything it takes to tag text.

    Attributes:
        decode: function of word ids and lengths (as in `Tagger.forward`) and of ELMo ids or layers → best tags,
            int64 array `[batch, words]`.
        vocabulary: of the word embedding, None for a released model. tags: by id.
        table: replacements before a word is looked up.
        elmo_vocabulary: of the biLM, None without ELMo.
        tagger: the network; None if the model comes from `lac.export`.
        exported: of an exported model, the network for C++; None if its program is to be run.
        released: the dictionaries of a released model, or of one trained from it; else None.
    """

    decode: Callable
    vocabulary: Optional[Vocabulary]
    tags: List[str]
    table: Table
    elmo_vocabulary: Optional[Vocabulary]
    tagger: Optional[Tagger]
    released: Optional[Dictionaries] = None
    exported: Optional[Tagger] = None


class Encoded(NamedTuple):
    """Word ids of sentences, int64 `[words]` each; `elmo` is None without ELMo."""

    words: List[np.ndarray]
    elmo: Optional[List[np.ndarray]]
    lengths: np.ndarray


def encode(model: Model, sentences: Iterable[Sequence[str]]) -> Encoded:
    """Look up the words of sentences."""
    sentences = list(sentences)
    words = [word_ids(model, words) for words in sentences]
    elmo = None
    if model.elmo_vocabulary:
        elmo = [np.array(plain_ids(words, model.elmo_vocabulary, model.table), dtype=np.int64) for words in sentences]
    return Encoded(words, elmo, np.array([len(words) for words in sentences], dtype=np.int64))


def word_ids(model: Model, words: Sequence[str]) -> np.ndarray:
    """Return the ids of words for the word embedding, int64."""
    if model.released:
        return token_ids(model.released, words)
    return np.array(normalised_ids(words, model.vocabulary, model.table), dtype=np.int64)


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
    network = model.tagger or model.exported
    in_cpp = network is not None and kernels.library() is not None
    if in_cpp and encoded.elmo is None:  # which makes its own batches
        batches = [np.arange(len(found))]
    else:
        batches = list(batches_by_length(encoded.lengths, MAX_TOKENS, MAX_SENTENCES))
    for batch in batches[rank::world_size]:
        words, lengths, elmo = [encoded.words[number] for number in batch], encoded.lengths[batch], None
        if encoded.elmo is not None:
            ids = [encoded.elmo[number] for number in batch]
            elmo = layers(batch) if layers else paddle.to_tensor(pad(ids))
        if in_cpp:
            paths = _paths_in_cpp(network, words, lengths, elmo)
        else:
            paths = model.decode(paddle.to_tensor(pad(words)), paddle.to_tensor(lengths), elmo)
        for number, path, length in zip(batch, paths, lengths):
            found[number] = path[:length]
    return found


@paddle.no_grad()
def _paths_in_cpp(tagger: Tagger, words: List[np.ndarray], lengths: np.ndarray, elmo) -> List[np.ndarray]:
    vectors = None
    if elmo is not None:
        encoder = tagger.encoder
        layers = encoder.layers(elmo, paddle.to_tensor(lengths)) if len(elmo.shape) == 2 else elmo
        vectors = encoder.mix(layers).numpy()
        vectors = vectors[np.arange(vectors.shape[1]) < lengths[:, None]]
    return np.split(tagger.best_tags(np.concatenate(words), lengths, vectors), np.cumsum(lengths)[:-1])


def pieces_of(model: Model, tokens: List[str]) -> List[List[str]]:
    """Cut a long text's tokens, after the end of a sentence where there is one; a text without tokens has no piece."""
    pieces, longest = [], LONGEST_ELMO_TEXT if model.elmo_vocabulary else LONGEST_TEXT
    while len(tokens) > longest:
        ends = (place for place in range(longest, 0, -1) if tokens[place - 1] in SENTENCE_ENDS)
        cut = next(ends, longest)
        pieces.append(tokens[:cut])
        tokens = tokens[cut:]
    return pieces + [tokens] if tokens else pieces


def predict(model: Model, sentences: Sequence[Sequence[str]]) -> List[List[str]]:
    """Return a tag for each word of each sentence; a sentence without words has none."""
    pieces = [(number, piece) for number, words in enumerate(sentences) for piece in pieces_of(model, list(words))]
    tags: List[List[str]] = [[] for _ in sentences]
    paths = predict_ids(model, encode(model, [piece for _, piece in pieces])) if pieces else []
    for (number, _), path in zip(pieces, paths):
        tags[number] += [model.tags[tag] for tag in path]
    return tags


def join(tokens: Sequence[str], tags: Sequence[str]) -> Tuple[List[str], List[str]]:
    """Return the words that tokens make up, and the tag of each, from a tag for each token.

    Every character of the tokens is in exactly one word, also where the tags make no sense.
    """
    text, places = "".join(tokens), [0, *itertools.accumulate(map(len, tokens))]
    outside = [Span(*place) for place in zip(places, places[1:], tags) if place[2] == OUTSIDE]
    found = sorted([*spans(tokens, tags), *outside])
    return [text[span.start : span.end] for span in found], [span.tag for span in found]


def tag_lines(model: Model, lines: Sequence[str]) -> List[Tuple[List[str], List[str]]]:
    """Return words and tags of lines of raw text; the words of a line joined up are the line."""
    cut_lines = [cut(line) for line in lines]
    tokens = [[token for token in line if not token.isspace()] for line in cut_lines]
    return [_put_back(line, tags) for line, tags in zip(cut_lines, predict(model, tokens))]


def _put_back(tokens: List[str], tags: List[str]) -> Tuple[List[str], List[str]]:
    """Join tokens to words between the white space, which stays where it is."""
    words, kinds, rest = [], [], iter(tags)
    for blank, group in itertools.groupby(tokens, key=str.isspace):
        group = list(group)
        joined = (group, [""] * len(group)) if blank else join(group, list(itertools.islice(rest, len(group))))
        words += joined[0]
        kinds += joined[1]
    return words, kinds


def read_tagged(
    paths: Sequence[str],
    tags: Sequence[str],
    released: Optional[Dictionaries],
    on_bad_line: str = "error",
    cut_at_words: bool = False,
) -> Tuple[List[Sentence], List[str], int]:
    """Return the sentences of tagged files as a model gets them, and what is wrong with the lines left out.

    Args:
        paths, tags, on_bad_line: see `lac.reader.read_sentences`.
        released, cut_at_words: the dictionaries of a released model, and whether to train on the sentences, see
            `lac/released_lines.py`.

    Returns:
        also how many gold words are of types that the tags cannot express.

    Raises:
        InputError: as `read_sentences` and `check_gold`.
    """
    parse = parser(released, tags, cut_at_words) if released else None
    sentences, problems = read_sentences(paths, tags, on_bad_line, parse)
    return sentences, problems, check_gold(sentences, tags, paths[0])


def score_ids(model: Model, sentences: Iterable[Sentence], paths: Iterable[Sequence[int]]) -> Scores:
    """Return the scores of tag ids against the gold words of sentences."""
    to_spans = released_spans if model.released else spans
    return score(
        (sentence.gold, to_spans(sentence.words, [model.tags[number] for number in path]))
        for sentence, path in zip(sentences, paths)
    )


def score_model(model: Model, sentences: Sequence[Sentence]) -> Scores:
    """Tag sentences and return the scores."""
    return score_ids(model, sentences, predict_ids(model, encode(model, [s.words for s in sentences])))


def elmo_info(encoder: Optional[ElmoEncoder]) -> Optional[Dict[str, Any]]:
    """Return the arguments that make the encoder again, None for none."""
    if encoder is None:
        return None
    return {**encoder.config, **{name: getattr(encoder, name) for name in ("boundaries", "start", "end", "legacy")}}


def model_info(model: Model) -> Dict[str, Any]:
    """Return what `checkpoint.json` says about a model."""
    return {
        "model": model.tagger.config,
        "elmo": elmo_info(model.tagger.encoder),
        "tags": model.tags,
        "q2b": {chr(key): value for key, value in model.table.items()},
        "released": model.released.mode if model.released else None,
    }


def model_state(model: Model) -> Dict[str, np.ndarray]:
    """Return what `state.npz` holds of a model."""
    state = {"elmo_vocabulary": np.array(model.elmo_vocabulary.text)} if model.elmo_vocabulary else {}
    if model.released and model.released.pieces is not None:
        state["small_seg"] = np.array(model.released.pieces)
    return state


def vocabulary_text(model: Model) -> str:
    """Return what `vocabulary.txt` holds."""
    return model.released.words if model.released else model.vocabulary.text


def restore(found: checkpoint.Checkpoint, elmo_options: Optional[Dict[str, float]] = None, **options) -> Model:
    """Make a model from a checkpoint.

    Args:
        elmo_options, options: of `ElmoEncoder` and `Tagger`, for training on.

    Raises:
        CheckpointError: it is none of a tagger, or its parts do not belong together.
    """
    info = found.info
    if "tags" not in info:
        raise CheckpointError(f"{found.path} is a language model, not a tagger; lac.train makes one from it")
    try:
        tags, table = [str(tag) for tag in info["tags"]], {ord(key): str(value) for key, value in info["q2b"].items()}
        vocabulary, released, elmo_vocabulary = _vocabulary_of(found), _released_of(found, table), None
        if info["elmo"] is not None:
            elmo_vocabulary = vocabulary_from(str(found.state["elmo_vocabulary"]).split("\n")[:-1])
        _check_sizes(found, released.size if released else vocabulary.size, tags, elmo_vocabulary)
        encoder = ElmoEncoder(**info["elmo"], **(elmo_options or {})) if elmo_vocabulary else None
        tagger = Tagger(**info["model"], encoder=encoder, **options)
    except (InputError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{found.path}: {checkpoint.INFO_FILE} does not fit the other files: {error}")
    checkpoint.check_arrays(
        {name: parameter.shape for name, parameter in tagger.named_parameters()},
        found.model,
        found.path / checkpoint.MODEL_FILE,
    )
    tagger.set_state_dict(found.model)
    tagger.eval()
    return Model(decoder(tagger), vocabulary, tags, table, elmo_vocabulary, tagger, released)


def _vocabulary_of(found) -> Optional[Vocabulary]:
    return None if found.info.get("released") else Vocabulary(found.path / checkpoint.VOCABULARY_FILE)


def _released_of(found, table) -> Optional[Dictionaries]:
    if not found.info.get("released"):  # older checkpoints do not know of it
        return None
    words = [line for block in read_lines(found.path / checkpoint.VOCABULARY_FILE) for line in block]
    pieces = str(found.state["small_seg"]).split("\n") if "small_seg" in found.state else None
    return dictionaries.parse(found.path, words, pieces, table)


def _check_sizes(found, num_words: int, tags: List[str], elmo_vocabulary: Optional[Vocabulary]) -> None:
    """Raise `ValueError` if a checkpoint's sizes are not those of its parts; no memory is set aside for them before."""
    sizes, elmo, there = found.info["model"], found.info["elmo"], sum(array.size for array in found.model.values())
    numbers = sizes["num_words"] * sizes["word_emb_dim"] + sizes["bigru_num"] * 6 * sizes["grnn_hidden_dim"] ** 2
    whole = list(sizes.values())
    if elmo_vocabulary:
        names = ("vocab_size", "embed_size", "hidden_size", "num_layers")
        whole += [elmo[name] for name in names]
        numbers += bilm_numbers(*(elmo[name] for name in names))
    if not all(type(size) is int and size > 0 for size in whole) or numbers > there:
        raise ValueError(f"{sizes} and {elmo} do not fit the {there:,} numbers of {checkpoint.MODEL_FILE}")
    if [sizes["num_words"], sizes["num_tags"]] != [num_words, len(tags)] or len(set(tags)) != len(tags):
        raise ValueError(f"{sizes} does not fit {num_words} words and {len(set(tags))} tags")
    if elmo_vocabulary and elmo_vocabulary.size != elmo["vocab_size"]:
        raise ValueError(f"{elmo} does not fit a vocabulary of {elmo_vocabulary.size} words")


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
    names = EXPORTED + [name for name in EXPORTED_SOMETIMES if (folder / name).exists()]
    problem = damage(folder, names)
    if problem:
        raise CheckpointError(problem)
    program = paddle.jit.load(str(folder / PROGRAM))
    program.eval()

    @paddle.no_grad()
    def decode(word_ids, lengths, elmo=None):
        return program(word_ids, lengths, *([] if elmo is None else [elmo])).numpy()

    tags, table = read_tags(folder / "tag.dic"), read_table(folder / "q2b.dic")
    elmo_vocabulary = Vocabulary(folder / ELMO_VOCABULARY) if ELMO_VOCABULARY in names else None
    released = dictionaries.read(folder, tags, table) if "word.dic" in names else None
    vocabulary = None if released else Vocabulary(folder / "vocabulary.txt")
    network = _exported_network(folder / NETWORK) if NETWORK in names and kernels.library() else None
    return Model(decode, vocabulary, tags, table, elmo_vocabulary, None, released, network)


def _exported_network(path: Path) -> Tagger:
    """Return the network of `network.npz`; the sizes come from its arrays."""
    with np.load(path) as file:
        arrays = {name: paddle.to_tensor(file[name]) for name in file.files}
    words, embed = arrays["word_embedding"].shape
    hidden = arrays["blocks.0.forward_gru.candidate_w"].shape[0]
    blocks = sum(name.endswith("forward_gru.gate_w") for name in arrays)
    tagger = Tagger(words, arrays["output_b"].shape[0], embed, hidden, blocks)
    tagger.set_state_dict(arrays)
    tagger.eval()
    return tagger


def load(path: Union[str, Path]) -> Model:
    """Return the model of a folder: a checkpoint of lac.train, its run (the best one), or what lac.export made."""
    folder = Path(path)
    if any((folder / name).is_file() for name in PROGRAM_FILES):
        return load_exported(folder)
    return restore(checkpoint.load(checkpoint.resolve(folder)))
