"""How the cost of a token grows with sizes, processes, text and time: python benchmarks/scaling.py

Measures one size after the other with throughput.py, everything else as in its preset mid with sampled softmax, and
writes benchmarks/results/scaling.md and scaling.png. Each size of a row of sizes is measured in turn, ROUNDS times
over; the round with the median speed counts. About a quarter of an hour on two idle cores.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
sys.path.insert(0, str(ROOT))

from elmo_chinese.runtime import available_cores  # noqa: E402
from elmo_chinese.training.metrics import read_metrics  # noqa: E402

import numpy as np  # noqa: E402

from reader import BidirectionalReader, Vocabulary  # noqa: E402

SWEEPS = {
    "batch": [16, 32, 64, 128],
    "hidden": [512, 1024, 2048, 4096],
    "vocab_size": [20_000, 200_000],
    "processes": [1, 2],
}
ROUNDS = 3


def throughput(name, value):
    """Return the figures of throughput.py with one size changed."""
    command = [sys.executable, ROOT / "benchmarks" / "throughput.py", "--preset=mid", "--iters=6", f"--{name}={value}"]
    done = subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE, universal_newlines=True)
    return json.loads(done.stdout.splitlines()[-1])


def write_text(folder, tokens):
    """Write a text of Zipf-distributed words and its vocabulary."""
    words = np.array([f"w{number}" for number in range(5000)])
    share = 1 / np.arange(1, len(words) + 1)
    drawn = np.random.default_rng(0).choice(words, tokens, p=share / share.sum())
    lines = (" ".join(drawn[start : start + 20]) for start in range(0, tokens, 20))
    (folder / "text.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "vocabulary.txt").write_text("\n".join(["<S>", "</S>", "<UNK>", *words]) + "\n", encoding="utf-8")


def reading(tokens):
    """Return the nanoseconds it takes to encode a token and put it into a batch, in a text of so many."""
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        write_text(folder, tokens)
        start = time.perf_counter()
        reader = BidirectionalReader(
            [str(folder / "text.txt")], Vocabulary(folder / "vocabulary.txt"), 64, 20, cache_dir=str(folder / "cache")
        )
        batches = iter(reader)
        for _ in range(reader.tokens_per_epoch // (64 * 20)):
            next(batches)
        return 1e9 * (time.perf_counter() - start) / tokens


def epochs():
    """Return the tokens/s of the second to fourth and of the last three of twelve epochs of a training run."""
    with tempfile.TemporaryDirectory() as folder:
        write_text(Path(folder), 200_000)
        flags = dict(
            vocab_path=f"{folder}/vocabulary.txt", train_path=f"{folder}/text.txt", para_save_dir=f"{folder}/run",
            embed_size=64, hidden_size=256, batch_size=64, num_steps=20, max_epoch=12, log_interval=1,
            save_interval=10**6, sample_softmax="true", n_negative_samples_batch=500, use_gpu="false",
        )  # fmt: skip
        command = [
            sys.executable,
            "train.py",
            *(part for name, value in flags.items() for part in (f"--{name}", value)),
        ]
        subprocess.run(list(map(str, command)), cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        records = [r for r in read_metrics(Path(folder) / "run" / "log" / "metrics.jsonl") if r["kind"] == "train"]
        return [
            float(np.median([r["tokens_per_second"] for r in records if begin < r["epoch"] <= begin + 3]))
            for begin in (1, 9)
        ]


def plot(figures, path):
    """Draw tokens/s, and what the matrix products alone would allow, against each size."""
    import matplotlib  # comes with visualdl

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = ["batch", "hidden", "processes"]
    figure, all_axes = pyplot.subplots(1, len(shown), figsize=(10, 3.2))
    for axes, name in zip(all_axes, shown):
        values = [str(value) for value in SWEEPS[name]]
        rows = [figures[name, value] for value in SWEEPS[name]]
        axes.plot(values, [row["tokens_per_s"] for row in rows], "o-", label="training")
        if name != "processes":  # each process would measure the limit of its own cores
            axes.plot(values, [row["limit_tokens_per_s"] for row in rows], "o--", label="matrix products alone")
        axes.set_xlabel(name)
        axes.set_ylim(bottom=0)
    all_axes[0].set_ylabel("tokens/s")
    all_axes[0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main():
    """Measure everything and write table and plot."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    figures, rows = {}, ["| what changes | value | tokens/s | of the matrix products' limit |", "|---|---|---|---|"]
    for name, values in SWEEPS.items():
        runs = [[throughput(name, value) for value in values] for _ in range(ROUNDS)]
        for value, of_value in zip(values, zip(*runs)):
            row = figures[name, value] = sorted(of_value, key=lambda run: run["tokens_per_s"])[ROUNDS // 2]
            limit = "" if name == "processes" else f"{row['of_limit']:.2f}"
            rows.append(f"| {name} | {value} | {row['tokens_per_s']:.0f} | {limit} |")
            print(rows[-1], flush=True)
    short, long = reading(1_000_000), reading(8_000_000)
    rows += ["", f"Reading, nanoseconds a token: {short:.0f} in a text of 1 million, {long:.0f} in one of 8 million."]
    early, late = epochs()
    rows += ["", f"A training run, tokens/s: {early:.0f} in epochs 2 to 4, {late:.0f} in epochs 10 to 12."]
    RESULTS.mkdir(parents=True, exist_ok=True)
    note = f"`python benchmarks/scaling.py`, {available_cores()} cores, preset mid, sampled softmax; one thing changes"
    (RESULTS / "scaling.md").write_text("\n".join([note, "", *rows]) + "\n", encoding="utf-8")
    plot(figures, RESULTS / "scaling.png")
    print("\n".join(rows[-3:]))


if __name__ == "__main__":
    main()
