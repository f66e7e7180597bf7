"""How much of raw text a vocabulary knows, by how it is cut: python benchmarks/words.py --vocab_path V --text T

T has segmented sentences, as those who made the vocabulary cut them, one a line. For their own words, jieba's, and the
best path over the vocabulary's words (`elmo-embed --segment` and `preprocess.py sentences --cutter V`), printed are the
shares of words and of characters that are <UNK>, and how well the ends of words within sentences and the words
themselves agree with theirs (F1).
"""

import argparse
import itertools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from elmo_chinese.text.reading import read_sentences  # noqa: E402
from elmo_chinese.text.segmenter import JiebaSegmenter, along  # noqa: E402
from elmo_chinese.text.vocabulary import Vocabulary  # noqa: E402


def spans(words):
    """Return the start and end of each word."""
    ends = list(itertools.accumulate(map(len, words)))
    return set(zip([0, *ends], ends))


def f1(found, gold, right):
    """Return F1 in percent."""
    return 100 * 2 * right / (found + gold)


def row(name, rows, gold, vocabulary):
    """Print a row of the table."""
    words = list(itertools.chain.from_iterable(rows))
    unknown = [word for word in words if word not in vocabulary.ids]
    by_word = by_end = ends = gold_ends = 0
    for own, theirs in zip(map(spans, rows), map(spans, gold)):
        inner, gold_inner = ({end for _, end in some} - {max(end for _, end in some)} for some in (own, theirs))
        by_word, by_end = by_word + len(own & theirs), by_end + len(inner & gold_inner)
        ends, gold_ends = ends + len(inner), gold_ends + len(gold_inner)
    share, characters = len(unknown) / len(words), sum(map(len, unknown)) / sum(map(len, words))
    scores = f1(ends, gold_ends, by_end), f1(len(words), sum(map(len, gold)), by_word)
    print(f"| {name} | {100 * share:.2f} % | {100 * characters:.2f} % | {scores[0]:.1f} | {scores[1]:.1f} |")


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocab_path", required=True, help="the vocabulary, most frequent words first")
    parser.add_argument("--text", required=True, help="segmented sentences")
    options = parser.parse_args()
    vocabulary = Vocabulary(options.vocab_path)
    gold = [words for block in read_sentences(options.text) for words in block if words]
    texts = ["".join(words) for words in gold]
    print("| cut | <UNK> words | characters in them | ends of words, F1 | words, F1 |\n|---|---|---|---|---|")
    for name, rows in (
        ("theirs", gold),
        ("jieba", map(JiebaSegmenter().cut, texts)),
        ("along the vocabulary", map(along(vocabulary).cut, texts)),
    ):
        row(name, list(rows), gold, vocabulary)


if __name__ == "__main__":
    main()
