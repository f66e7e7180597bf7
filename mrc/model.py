"""A trained reader: what its folder holds, and how it answers.

A folder is a checkpoint (`elmo_chinese/storage/checkpoint.py`) that needs no other file:

    model.pdparams     all parameters, those of the biLM too
    vocabulary.txt     the words of the word embedding: lower case, half-width
    state.npz          the biLM's vocabulary
    checkpoint.json    sizes ("model", "elmo", "limits"), flags, dev scores, versions
"""

from collections import Counter
from pathlib import Path
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple, Union

from elmo_chinese.storage import checkpoint, contents
from elmo_chinese.storage.checkpoint import CheckpointError
from elmo_chinese.text.reading import InputError
from elmo_chinese.text.vocabulary import END, START, UNKNOWN, Vocabulary, vocabulary_from
from elmo_chinese.training.batches import batches_by_length, pad
from elmo_chinese.training.layers import LayerCache, check_sizes, elmo_state, elmo_vocabulary_of, encoder_info, fill

import numpy as np
import paddle

from bilm import ElmoEncoder
from mrc.evaluate import Scores, score
from mrc.network import Batch, Reader
from mrc.questions import Group, Limits
from mrc.texts import HALF_WIDTH, Text, windows

# Words of the passages of a batch in prediction, each as often as it is asked, padding included; and its groups.
MAX_WORDS, MAX_GROUPS = 16384, 64
# Groups with more questions or passages than this are taken apart, so that what a batch holds is bounded.
MAX_QUESTIONS = MAX_PASSAGES = 32


class Model(NamedTuple):
    """Everything it takes to answer questions; `elmo_vocabulary` is None without ELMo."""

    reader: Reader
    vocabulary: Vocabulary
    elmo_vocabulary: Optional[Vocabulary]
    limits: Limits


class Encoded(NamedTuple):
    """Groups as numbers.

    Attributes:
        words: word ids of all texts, int64 `[words]` each: first all passages, then all questions.
        elmo: the biLM's word ids of each sentence of each text; None without ELMo.
        passages, questions: the numbers of the texts of each group, int64.
        sizes: of each group, questions · passages · words of the longest passage.
    """

    words: List[np.ndarray]
    elmo: Optional[List[List[np.ndarray]]]
    passages: List[np.ndarray]
    questions: List[np.ndarray]
    sizes: np.ndarray


class Answer(NamedTuple):
    """An answer and its place: characters start to end (not included) of a document, counted from 0."""

    text: str
    document: int
    start: int
    end: int
    probability: float


def split_groups(groups: Iterable[Group], most: int = MAX_QUESTIONS) -> List[Group]:
    """Return the groups, those with more questions than `most` taken apart."""
    return [
        group._replace(questions=group.questions[first : first + most])
        for group in groups
        for first in range(0, len(group.questions), most)
    ]


def key(word: str) -> str:
    """Return the form in which a word is looked up in the reader's vocabulary."""
    return word.translate(HALF_WIDTH).lower()


def build_vocabulary(groups: Iterable[Group], min_count: int) -> Vocabulary:
    """Return the vocabulary of the words that stand so often in groups, most frequent first."""
    counts: Counter = Counter()
    for group in groups:
        for text in [*group.passages, *(question.text for question in group.questions)]:
            counts.update(map(key, text.words))
    specials = [START, END, UNKNOWN]
    words = sorted((word for word in counts if counts[word] >= min_count), key=lambda word: (-counts[word], word))
    # A segmented file may have white space within words, which no line of a vocabulary can hold.
    return vocabulary_from(specials + [word for word in words if word.split() == [word] and word not in specials])


def _sentences(text: Text, vocabulary: Vocabulary) -> List[np.ndarray]:
    """Return the ids of each sentence; a word that is unknown as it stands is looked up in its half-width form."""
    get, unknown = vocabulary.ids.get, vocabulary.unknown
    ids = [get(word, get(word.translate(HALF_WIDTH), unknown)) for word in text.words]
    return np.split(np.array(ids, dtype=np.int64), np.cumsum(text.sentences)[:-1])


def encode(model: Model, groups: Sequence[Group]) -> Encoded:
    """Look up the words of groups."""
    passages = [text for group in groups for text in group.passages]
    texts = passages + [question.text for group in groups for question in group.questions]
    words = [np.array(model.vocabulary.encode(map(key, text.words)), dtype=np.int64) for text in texts]
    elmo = [_sentences(text, model.elmo_vocabulary) for text in texts] if model.elmo_vocabulary else None
    numbers = [np.arange(len(passages)), np.arange(len(passages), len(texts))]
    counts = [[len(group.passages) for group in groups], [len(group.questions) for group in groups]]
    of_passages, of_questions = (np.split(n, np.cumsum(count)[:-1]) for n, count in zip(numbers, counts))
    longest = [max(len(words[number]) for number in group) for group in of_passages]
    sizes = np.array(counts[0]) * np.array(counts[1]) * np.array(longest)
    return Encoded(words, elmo, of_passages, of_questions, sizes)


def widths(encoded: Encoded, groups: Sequence[int]) -> Tuple[int, int]:
    """Return the words of the longest question and of the longest passage of some groups."""
    return tuple(
        max(len(encoded.words[number]) for group in groups for number in texts[group])
        for texts in (encoded.questions, encoded.passages)
    )


def make_batch(
    model: Model,
    encoded: Encoded,
    groups: Sequence[int],
    layers: Optional[LayerCache] = None,
    padded: Optional[Tuple[int, int]] = None,
) -> Batch:
    """Return some groups as the network gets them.

    Args:
        groups: their numbers.
        layers: of all texts of `encoded`; None: they are computed here.
        padded: to how many words questions and passages are padded; None: their longest.
    """
    padded = padded or widths(encoded, groups)
    rows = [np.concatenate([texts[group] for group in groups]) for texts in (encoded.questions, encoded.passages)]
    arrays, elmo = [], []
    for numbers, width in zip(rows, padded):
        words = [encoded.words[number] for number in numbers]
        arrays += [pad(words, width), np.array([len(ids) for ids in words], dtype=np.int64)]
        if encoded.elmo is None:
            elmo.append(None)
        elif layers:
            elmo.append(layers(numbers, width))
        else:
            texts = [encoded.elmo[number] for number in numbers]
            elmo.append(LayerCache(model.reader.encoder, texts)(range(len(texts)), width))
    most = max(len(encoded.passages[group]) for group in groups)
    documents, mask, first = [], [], 0
    for group in groups:
        count = len(encoded.passages[group])
        place = np.arange(most)
        documents += [np.where(place < count, first + place, first)] * len(encoded.questions[group])
        mask += [(place < count).astype(np.float32)] * len(encoded.questions[group])
        first += count
    return Batch(*(paddle.to_tensor(array) for array in (*arrays, np.array(documents), np.array(mask))), *elmo)


def best_spans(start: np.ndarray, end: np.ndarray, most: int) -> np.ndarray:
    """Return the likeliest span of each question that stands in one passage.

    Args:
        start, end: logarithms of probabilities, float32 `[questions, documents, words]`.
        most: words of a span.

    Returns:
        float64 `[questions, 4]`: passage, first and last word, and the product of the two probabilities.
    """
    rows, documents, words = start.shape
    best = np.full(rows, -np.inf)
    found = np.zeros((rows, 4))
    for length in range(min(most, words)):
        sums = (start[:, :, : words - length] + end[:, :, length:]).reshape(rows, -1)
        at = sums.argmax(axis=1)
        value = sums[np.arange(rows), at]
        better = value > best
        passage, first = np.divmod(at, words - length)
        found[better] = np.stack([passage, first, first + length, value], axis=1)[better]
        best = np.maximum(best, value)
    found[:, 3] = np.exp(found[:, 3])
    return found


@paddle.no_grad()
def predict_spans(
    model: Model, encoded: Encoded, layers: Optional[LayerCache] = None, rank: int = 0, world_size: int = 1
) -> np.ndarray:
    """Return the answer of each question, as `best_spans`, in the order of the questions.

    Args:
        layers: see `make_batch`.
        rank, world_size: this process does its share of the batches; the other rows are zeros.
    """
    first = encoded.questions[0][0]
    found = np.zeros((len(encoded.words) - first, 4))
    for groups in list(batches_by_length(encoded.sizes, MAX_WORDS, MAX_GROUPS))[rank::world_size]:
        batch = make_batch(model, encoded, groups, layers)
        shape = [*batch.documents.shape, batch.passages.shape[1]]
        start, end = (log.numpy().reshape(shape) for log in model.reader(batch))
        numbers = np.concatenate([encoded.questions[group] for group in groups]) - first
        found[numbers] = best_spans(start, end, model.limits.answer)
    return found


def answers(groups: Sequence[Group], spans: np.ndarray) -> Dict[str, Answer]:
    """Return the answers of all questions, by id, from what `predict_spans` returned."""
    found, number = {}, 0
    for group in groups:
        for question in group.questions:
            place, first, last = spans[number, :3].astype(int)
            text = group.passages[place]
            start, end = int(text.starts[first]), int(text.ends[last])
            found[question.id] = Answer(
                text.text[start:end], group.documents[place], start, end, float(spans[number, 3])
            )
            number += 1
    return found


def _in_windows(group: Group, most: int) -> Group:
    """Return a group whose passages are the windows of those of another."""
    pairs = zip(group.passages, group.documents)
    read = [(window, number) for text, number in pairs for window in windows(text, most)]
    return group._replace(passages=[window for window, _ in read], documents=[number for _, number in read])


@paddle.no_grad()
def _spans_of_many(model: Model, group: Group) -> np.ndarray:
    """Return the answer to a group's only question as `predict_spans` does; so many passages at a time are in work."""
    passages = [group.passages[first:][:MAX_PASSAGES] for first in range(0, len(group.passages), MAX_PASSAGES)]
    encoded = encode(model, [group._replace(passages=some) for some in passages])
    padded, found = widths(encoded, range(len(passages))), []
    for number, some in enumerate(passages):
        start, end, _ = model.reader.logits(make_batch(model, encoded, [number], padded=padded))
        found.append([logits.numpy().reshape([1, len(some), -1]) for logits in (start, end)])
    start, end = (np.concatenate(logits, axis=1).astype(np.float64) for logits in zip(*found))
    return best_spans(
        *(logits - np.logaddexp.reduce(logits, axis=None) for logits in (start, end)), model.limits.answer
    )


def predict(model: Model, groups: Sequence[Group]) -> Dict[str, Answer]:
    """Return the answers of all questions, by id.

    A passage longer than the model's limit is read in windows, each of them a passage of the question.
    """
    few, found = [], {}
    for group in groups:
        group = _in_windows(group, model.limits.passage)
        if len(group.passages) <= MAX_PASSAGES:
            few += split_groups([group], MAX_QUESTIONS // len(group.passages))
        else:
            for one in split_groups([group], 1):
                found.update(answers([one], _spans_of_many(model, one)))
    if few:
        found.update(answers(few, predict_spans(model, encode(model, few))))
    return {question.id: found[question.id] for group in groups for question in group.questions}


def score_answers(groups: Sequence[Group], found: Dict[str, Answer]) -> Scores:
    """Return the scores of answers against the references of the questions that have some."""
    return score((found[one.id].text, one.references) for group in groups for one in group.questions)


def model_info(model: Model) -> Dict[str, Any]:
    """Return what `checkpoint.json` says about a model."""
    return {
        "model": model.reader.config,
        "elmo": encoder_info(model.reader.encoder),
        "limits": model.limits._asdict(),
    }


def model_state(model: Model) -> Dict[str, np.ndarray]:
    """Return what `state.npz` holds of a model."""
    return elmo_state(model.elmo_vocabulary)


def restore(found: checkpoint.Checkpoint, elmo_options: Optional[Dict[str, float]] = None, **options) -> Model:
    """Make a model from a checkpoint.

    Args:
        elmo_options, options: of `ElmoEncoder` and `Reader`, for training on.

    Raises:
        CheckpointError: it is none of a reader, or its parts do not belong together.
    """
    info = found.info
    contents.check_kind(found, "limits")
    try:
        limits, elmo_vocabulary = Limits(**info["limits"]), elmo_vocabulary_of(found)
        vocabulary = Vocabulary(found.path / checkpoint.VOCABULARY_FILE)
        _check_sizes(found, limits, vocabulary, elmo_vocabulary)
        encoder = ElmoEncoder(**info["elmo"], dropout=0, **(elmo_options or {})) if elmo_vocabulary else None
        reader = Reader(**info["model"], encoder=encoder, **options)
    except (InputError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{found.path}: {checkpoint.INFO_FILE} does not fit the other files: {error}")
    fill(reader, found)
    return Model(reader, vocabulary, elmo_vocabulary, limits)


def _check_sizes(found, limits: Limits, vocabulary: Vocabulary, elmo_vocabulary: Optional[Vocabulary]) -> None:
    """Raise `ValueError` if a checkpoint's sizes are not those of its parts; see `check_sizes`."""
    words, *others = sizes = [found.info["model"][name] for name in ("num_words", "word_emb_dim", "hidden_size")]
    numbers = words * others[0] + 78 * others[1] ** 2  # of the GRUs what depends on the hidden size alone
    check_sizes(found, [*sizes, *limits], numbers, elmo_vocabulary)
    if words != vocabulary.size:
        raise ValueError(f"{words} words do not fit a vocabulary of {vocabulary.size}")


def load(path: Union[str, Path]) -> Model:
    """Return the model of a folder: a checkpoint of mrc.train, or its run (the best one)."""
    return restore(checkpoint.load(checkpoint.resolve(path)))
