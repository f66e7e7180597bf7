"""How well and fast others cut the same text: python benchmarks/segmenters.py [--work runs/transfer]

After `benchmarks/transfer.sh`: its test lines through what is installed of jieba, snownlp and thulac (`pip install`
each by name), the released LAC, and the taggers of that benchmark. spacy-pkuseg, LTP, HanLP and others are left out:
they download a model at run time. Prints a Markdown table: F1 of segmentation, and of words with their part of speech
where the tags are those of the corpus; sentences a second of one process with one thread.
"""

import argparse
import importlib
import os
import sys
import time
from pathlib import Path

os.environ["MKL_NUM_THREADS"] = "1"
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from elmo_chinese.text.reading import InputError  # noqa: E402

from lac import LAC  # noqa: E402
from lac.evaluate import score  # noqa: E402
from lac.lines import Span, read_gold  # noqa: E402


def jieba():
    """Return jieba with its own tags (those of the corpus have the same first letter)."""
    package = importlib.import_module("jieba.posseg")
    importlib.import_module("jieba").setLogLevel(60)
    return lambda texts: [[(word, flag) for word, flag in package.cut(text)] for text in texts]


def snownlp():
    """Return snownlp's segmenter, which was trained on this newspaper."""
    package = importlib.import_module("snownlp.seg")
    return lambda texts: [[(word, "") for word in package.seg(text)] for text in texts]


def thulac():
    """Return THULAC without tags."""
    cutter = importlib.import_module("thulac").thulac(seg_only=True)
    return lambda texts: [[(word, "") for word, _ in cutter.cut(text)] for text in texts]


def ours(path=None, mode="lac"):
    """Return a function that loads a tagger, None: a released one."""

    def load():
        tagger = LAC(path, mode)

        def tag(texts):
            answers = [answer for n in range(0, len(texts), 100) for answer in tagger.run(texts[n : n + 100])]
            return [list(zip(*one)) if mode == "lac" else [(word, "") for word in one] for one in answers]

        return tag

    return load


def spans(words):
    """Return the words of a text as spans, white space left out."""
    found, place = [], 0
    for word, kind in words:
        bare = "".join(word.split())
        if bare:
            found.append(Span(place, place + len(bare), kind))
        place += len(bare)
    return found


def measure(name, load, lines, typed):
    """Print a row, or why there is none."""
    try:
        cut = load()
    except (ImportError, InputError, OSError) as error:
        print(f"| {name} | not here: {error} | | |", flush=True)
        return
    texts = [line.text for line in lines]
    cut(texts[:20])
    start = time.perf_counter()
    found = cut(texts)
    speed = len(texts) / (time.perf_counter() - start)
    figures = score((line.gold, spans(words)) for line, words in zip(lines, found))
    f1 = f"{100 * figures.overall.f1:.2f}" if typed else ""
    print(f"| {name} | {100 * figures.segmentation.f1:.2f} | {f1} | {speed:,.0f} |", flush=True)


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "transfer")
    options = parser.parse_args()
    lines, _ = read_gold([str(options.work / "lac" / "test.txt")])
    print("| | segmentation F1 | with part of speech | sentences/s |\n|---|---|---|---|", flush=True)
    others = {"jieba (posseg)": jieba, "snownlp": snownlp, "THULAC": thulac}
    others.update({"released LAC, lac": ours(), "released LAC, seg": ours(None, "seg")})
    for name, load in others.items():
        measure(name, load, lines, typed=False)
    for folder in sorted(path for path in (options.work / "cells").glob("*_seed0_*") if (path / "best").exists()):
        measure(f"trained here, {folder.name}", ours(str(folder)), lines, typed=True)


if __name__ == "__main__":
    main()
