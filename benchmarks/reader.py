"""How fast text becomes batches: python benchmarks/reader.py [--words 5000000]

Writes random text with Zipf-distributed words and sentences of 3 to 45 words, encodes it into an empty
cache, then reads batches of 128 × 20 from the cache. One process, one core. Prints one JSON line.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from elmo_chinese.text.vocabulary import Vocabulary

from reader import BidirectionalReader


def write_corpus(folder: Path, count: int, vocab_size: int = 50000) -> None:
    """Write `words.txt` and `text/part` with `count` words."""
    rng = np.random.default_rng(0)
    words = [f"词{number}" for number in range(vocab_size)]
    (folder / "words.txt").write_text("\n".join(["<S>", "</S>", "<UNK>", *words]) + "\n", encoding="utf-8")
    share = 1 / np.arange(1, vocab_size + 1)
    ids = np.searchsorted(np.cumsum(share / share.sum()), rng.random(count)).clip(max=vocab_size - 1)
    ends = np.cumsum(rng.integers(3, 46, count // 20))
    (folder / "text").mkdir()
    with open(folder / "text" / "part", "w", encoding="utf-8") as file:
        for sentence in np.split(ids, ends[ends < count]):
            file.write(" ".join(words[index] for index in sentence) + "\n")


def main() -> None:
    """Run the two measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--words", type=int, default=5_000_000)
    parser.add_argument("--batches", type=int, default=2000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_corpus(folder, options.words)
        vocabulary = Vocabulary(folder / "words.txt")
        start = time.perf_counter()
        reader = BidirectionalReader(folder / "text", vocabulary, 128, 20)
        encoding = time.perf_counter() - start
        start = time.perf_counter()
        BidirectionalReader(folder / "text", vocabulary, 128, 20)
        opening = time.perf_counter() - start
        batches = iter(reader)
        start = time.perf_counter()
        for _ in range(options.batches):
            next(batches)
        reading = time.perf_counter() - start
    figures = {
        "encoded_words_per_s": round(options.words / encoding),
        "batched_tokens_per_s": round(options.batches * 128 * 20 / reading),
        "open_from_cache_s": round(opening, 3),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
