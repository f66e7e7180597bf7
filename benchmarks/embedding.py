"""How fast sentences become vectors: python benchmarks/embedding.py [--sentences 2000] [--paddle_first 3]

Sentences of random words with log-normal lengths (median 20, at most 120) through `elmo_embed.embed_ids` in
batches, against the first of them one at a time. The two are measured in turn, the best round of each counts.
Random weights, mid sizes unless given. Prints one JSON line.

With --paddle_first N, N pairs of processes instead: one imports Paddle before this project, as many programs do, the
other after it; prints the speeds of the pairs and their ratios.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from elmo_chinese import runtime

import numpy as np  # noqa: E402
import paddle  # noqa: E402

from bilm import ElmoEncoder  # noqa: E402
from elmo_embed import BATCH_TOKENS, embed_ids  # noqa: E402


def random_sentences(count: int, vocab_size: int, seed: int = 0):
    """Return int64 arrays of word ids, with lengths such as text has."""
    rng = np.random.default_rng(seed)
    lengths = np.clip(rng.lognormal(np.log(20), 0.6, count).astype(np.int64), 1, 120)
    return [rng.integers(3, vocab_size, length) for length in lengths]


def tokens_per_second(sentences, run) -> float:
    """Return the speed of a function that yields vectors for sentences."""
    start = time.perf_counter()
    assert sum(1 for _ in run(sentences)) == len(sentences)
    return sum(map(len, sentences)) / (time.perf_counter() - start)


def compare_orders(pairs: int, flags) -> None:
    """Measure in processes that import Paddle first, and in ones that import this project first, in turn."""
    program = "import sys, runpy; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    speeds = {"paddle first": [], "project first": []}
    for _ in range(pairs):
        for order, before in (("paddle first", "import paddle; "), ("project first", "")):
            command = [sys.executable, "-c", before + program, __file__, *flags]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            speeds[order].append(json.loads(done.stdout)["tokens_per_s"])
    ratios = [round(one / other, 3) for one, other in zip(*speeds.values())]
    print(json.dumps({**speeds, "ratios": ratios}))


def main() -> None:
    """Run the two measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sentences", type=int, default=2000, help="in batches")
    parser.add_argument("--alone", type=int, default=80, help="so many of them one at a time")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--batch_tokens", type=int, default=BATCH_TOKENS)
    parser.add_argument("--layers", default="all")
    parser.add_argument("--vocab_size", type=int, default=20000)
    parser.add_argument("--embed_size", type=int, default=256)
    parser.add_argument("--hidden_size", type=int, default=1024)
    parser.add_argument("--paddle_first", type=int, default=0, metavar="N", help="compare orders of import in N pairs")
    options = parser.parse_args()
    if options.paddle_first:
        flags = [flag for name, value in vars(options).items() for flag in (f"--{name}", str(value))]
        return compare_orders(options.paddle_first, flags[: flags.index("--paddle_first")])
    paddle.seed(0)
    encoder = ElmoEncoder(options.vocab_size, options.embed_size, options.hidden_size)
    sentences = random_sentences(options.sentences, options.vocab_size)

    def in_batches(some):
        return embed_ids(some, encoder, options.layers, batch_tokens=options.batch_tokens)

    def one_at_a_time(some):
        for ids in some:
            yield from embed_ids([ids], encoder, options.layers)

    tokens_per_second(sentences[:100], in_batches)  # warm up
    rounds = [
        (tokens_per_second(sentences, in_batches), tokens_per_second(sentences[: options.alone], one_at_a_time))
        for _ in range(options.rounds)
    ]
    batched, alone = map(max, zip(*rounds))
    mean_length = sum(map(len, sentences)) / len(sentences)
    figures = {
        "tokens_per_s": round(batched),
        "sentences_per_s": round(batched / mean_length, 1),
        "one_at_a_time_tokens_per_s": round(alone),
        "ratio": round(batched / alone, 2),
        "ratio_of_each_round": [round(one / other, 2) for one, other in rounds],
        **{name: getattr(options, name) for name in ("vocab_size", "embed_size", "hidden_size", "batch_tokens")},
        "settings": runtime.SETTINGS,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
