"""How fast text is cut into tokens: python benchmarks/cutting.py [--text FILE]

Characters a second of one thread, strings in and lists of tokens out, best of five: by the dictionary of the released
LAC and by jieba's as a unigram model, in C++ and in Python, in lines and one line at a time; jieba itself; and how long
it takes until the first line is cut. --text: lines of text (default: those of data/ and lac/data/, many times over).
"""

import argparse
import os
import sys
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from elmo_chinese.network import kernels  # noqa: E402
from elmo_chinese.text.reading import read_lines  # noqa: E402
from elmo_chinese.text.segmenter import JiebaSegmenter, PathSegmenter, along, read_counts  # noqa: E402
from elmo_chinese.text.vocabulary import Vocabulary  # noqa: E402

from lac import release  # noqa: E402


def lines_of(path):
    """Return the lines of a file."""
    return [line for block in read_lines(path) for line in block]


def example_lines():
    """Return the project's own sentences without their tags, about 500,000 characters."""
    tagged = lines_of(ROOT / "lac" / "data" / "train.txt") + lines_of(ROOT / "lac" / "data" / "dev.txt")
    lines = ["".join(item.rpartition("/")[0] for item in line.split()) for line in tagged]
    return lines * (500_000 // sum(map(len, lines)))


def seconds(work, times=5):
    """Return the least time that it takes."""
    found = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return min(found)


def measure(name, make, lines):
    """Print a row: start, all lines at once, one at a time."""
    start = seconds(lambda: make().cut_many(["中国"]), 3)
    cutter, size = make(), sum(map(len, lines))
    together = size / seconds(lambda: cutter.cut_many(lines))
    alone = size / seconds(lambda: [cutter.cut_many([line]) for line in lines])
    print(f"| {name} | {start:.2f} | {together / 1e6:.2f} | {alone / 1e6:.2f} |", flush=True)


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, help="lines of text")
    parser.add_argument(
        "--vocab_path", type=Path, default=ROOT / "data" / "vocabulary.txt", help="text is cut along its words, too"
    )
    options = parser.parse_args()
    lines = lines_of(options.text) if options.text else example_lines()
    import jieba

    path = Path(jieba.__file__).with_name("dict.txt")
    conf = release.fetch() / "lac_model" / "conf"
    tokens = {line.split("\t")[1] for line in lines_of(conf / "word.dic") if line}
    released = conf / "small_seg.dic"
    cutters = {
        "released LAC": lambda: PathSegmenter(read_counts(released, lines_of(released)), "length", tokens),
        "a vocabulary's words": lambda: along(Vocabulary(options.vocab_path)),
        "jieba's dictionary": lambda: PathSegmenter(read_counts(path, lines_of(path)), "count"),
    }
    print(f"{len(lines)} lines, {sum(map(len, lines))} characters; {kernels.describe()}\n")
    print("| cut by | start, s | million characters/s | one line at a time |\n|---|---|---|---|")
    for name, make in cutters.items():
        measure(name, make, lines)
    kernels.library = lambda: None
    for name, make in cutters.items():
        measure(f"{name}, in Python", make, lines)
    measure("jieba's words, by rjieba if it is installed", JiebaSegmenter, lines)


if __name__ == "__main__":
    main()
