"""Text in, tagged words out."""

import itertools
from typing import List, NamedTuple, Optional, Sequence

from lac.model import Model, encode, pieces_of, predict_ids
from lac.release.rank import Ranker
from lac.scores import kind_of


class Tagged(NamedTuple):
    """The tokens of a text, a tag for each that says whether a word begins (`lac.scores.words_begin`) and, in mode
    rank, a weight."""

    tokens: List[str]
    tags: List[str]
    weights: Optional[List[int]]


class Words(NamedTuple):
    """The words of a text; joined up they are the text. `weights` is None but in mode rank."""

    words: List[str]
    tags: List[str]
    weights: Optional[List[int]]


def tag_tokens(model: Model, texts: Sequence[str], ranker: Optional[Ranker] = None) -> List[Tagged]:
    """Cut and tag texts; the order is kept, and a text gets the same tags alone or among others.

    White space is a word of its own without a type, and no word goes on across it, unless it is tagged like all else.
    """
    text, all_tokens = model.text, model.text.cutter.cut_many(texts)
    shown = all_tokens
    if not text.habits.all_words:
        shown = [[token for token in tokens if not token.isspace()] for tokens in all_tokens]
    pieces = [(number, piece) for number, tokens in enumerate(shown) for piece in pieces_of(model, tokens)]
    encoded = encode(model, [piece for _, piece in pieces])
    paths = predict_ids(model, encoded) if pieces else []
    weights = ranker.weights(encoded.words, paths) if ranker and pieces else itertools.repeat(None)
    tags: List[List[str]] = [[] for _ in texts]
    weighed: List[List[int]] = [[] for _ in texts]
    for (number, _), path, weight in zip(pieces, paths, weights):
        tags[number] += [text.tags[tag] for tag in path.tolist()]
        weighed[number] += weight.tolist() if ranker else []
    tagged = []
    for tokens, of_shown, of_words, weight in zip(all_tokens, shown, tags, weighed):
        if len(of_shown) < len(tokens):
            rest = iter(of_words)
            of_words = ["" if token.isspace() else next(rest) for token in tokens]
        tagged.append(Tagged(tokens, text.habits.begun(of_words), weight if ranker else None))
    return tagged


def join(tagged: Tagged) -> Words:
    """Return the words that tokens and their tags make up; a word's weight is the largest of its tokens.

    As `lac.scores.all_spans`: a word starts where a tag ends in B or S, its type is that of its last token.
    """
    words: List[str] = []
    kinds: List[str] = []
    starts = []
    for place, (token, tag) in enumerate(zip(tagged.tokens, tagged.tags)):
        if tag[-1] in "BS" or not words:
            words.append(token)
            kinds.append(kind_of(tag))
            starts.append(place)
        else:
            words[-1] += token
            kinds[-1] = kind_of(tag)
    if tagged.weights is None:
        return Words(words, kinds, None)
    ends = [*starts[1:], len(tagged.weights)]
    return Words(words, kinds, [max(tagged.weights[start:end]) for start, end in zip(starts, ends)])


def characters(tagged: Tagged) -> Tagged:
    """Return each character as a token of its own: the first of a token has its tag, the others go on with it."""
    tags, weights = [], None if tagged.weights is None else []
    for place, (token, tag) in enumerate(zip(tagged.tokens, tagged.tags)):
        tags += [tag, *[kind_of(tag) + "-I"] * (len(token) - 1)]
        if weights is not None:
            weights += [tagged.weights[place]] * len(token)
    return Tagged(list("".join(tagged.tokens)), tags, weights)
