"""How fast text becomes batches, and what a start costs: python benchmarks/reader.py [--words 5000000]

Writes random text with Zipf-distributed words and sentences of 3 to 45 words, encodes it into an empty cache, then
reads batches of 128 × 20 from the cache. --repeat makes a text of so many files out of it (links to the same file,
which is encoded once), and --processes starts so many at once on it. Prints one JSON line.

    python benchmarks/reader.py --words 14000000 --repeat 72 --processes 4    # a billion words, 7 GB
    python benchmarks/reader.py --words 5000 --repeat 10000                   # many small files
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from elmo_chinese.text.vocabulary import Vocabulary

from reader import BidirectionalReader


def write_corpus(folder: Path, count: int, repeat: int, vocab_size: int = 50000) -> None:
    """Write `words.txt` and a folder `text` of `repeat` files with `count` words each."""
    rng = np.random.default_rng(0)
    words = [f"词{number}" for number in range(vocab_size)]
    (folder / "words.txt").write_text("\n".join(["<S>", "</S>", "<UNK>", *words]) + "\n", encoding="utf-8")
    share = 1 / np.arange(1, vocab_size + 1)
    ids = np.searchsorted(np.cumsum(share / share.sum()), rng.random(count)).clip(max=vocab_size - 1)
    ends = np.cumsum(rng.integers(3, 46, max(count // 20, 1)))
    (folder / "text").mkdir()
    first = folder / "text" / "part_000000"
    with open(first, "w", encoding="utf-8") as file:
        for sentence in np.split(ids, ends[ends < count]):
            file.write(" ".join(words[index] for index in sentence) + "\n")
    os.utime(first, (1, 1))
    for number in range(1, repeat):
        os.link(first, folder / "text" / f"part_{number:06}")


def cpu_time() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def open_and_read(folder: Path, batches: int) -> None:
    """Open a text that is encoded, read shuffled batches, and print what that took."""
    vocabulary = Vocabulary(folder / "words.txt")
    start, cpu = time.perf_counter(), cpu_time()
    reader = BidirectionalReader(folder / "text", vocabulary, 128, 20, shuffle=True, cache_dir=folder / "cache")
    opening, opening_cpu = time.perf_counter() - start, cpu_time() - cpu
    stream = iter(reader)
    cpu = cpu_time()
    next(stream)
    first, cpu = cpu_time() - cpu, cpu_time()
    for _ in range(batches):
        next(stream)
    figures = {
        "open_from_cache_s": round(opening, 3),
        "open_from_cache_cpu_s": round(opening_cpu, 3),
        "first_batch_cpu_s": round(first, 3),
        "batched_tokens_per_cpu_s": round(batches * 128 * 20 / (cpu_time() - cpu)),
        "open_files": len(os.listdir("/proc/self/fd")),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    print(json.dumps(figures))


def main() -> None:
    """Run the measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--words", type=int, default=5_000_000)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--batches", type=int, default=2000)
    parser.add_argument("--opened", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.opened:
        open_and_read(options.opened, options.batches)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_corpus(folder, options.words, options.repeat)
        vocabulary, cache = Vocabulary(folder / "words.txt"), folder / "cache"
        cpu = cpu_time()
        BidirectionalReader(folder / "text" / "part_000000", vocabulary, 128, 20, cache_dir=cache)
        encoding, cpu = cpu_time() - cpu, cpu_time()
        text = BidirectionalReader(folder / "text", vocabulary, 128, 20, cache_dir=cache)
        joining = cpu_time() - cpu
        command = [sys.executable, __file__, "--opened", str(folder), "--batches", str(options.batches)]
        opened = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(options.processes)]
        each = [json.loads(process.communicate()[0]) for process in opened]
        figures = {
            "words": text.tokens_per_epoch,
            "files": len(text.text.files),
            "text_gb": round(sum(path.stat().st_size for path in text.text.files) / 1e9, 3),
            "encoded_words_per_cpu_s": round(options.words / encoding),
            "joined_cpu_s": round(joining, 3),
        }
    print(json.dumps({**figures, **{name: max(one[name] for one in each) for name in each[0]}}))


if __name__ == "__main__":
    main()
