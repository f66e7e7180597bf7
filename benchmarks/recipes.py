"""What optimizer, learning rate, schedule and resets of the state are worth on a text of yours:

    python preprocess.py sentences --input news.txt --output words
    python preprocess.py vocabulary --input words/train --output words/vocabulary.txt --min_count 2
    python benchmarks/recipes.py --words words --output runs [--only adam] [--passes 0.5] [-- --hidden_size 512 …]

Trains each of RECIPES with each seed, by sampled softmax, flags of train.py behind `--` added; prints a Markdown table,
and draws the held-out perplexity of all that is finished in OUTPUT against the time into OUTPUT/recipes.png. What is
finished there is not trained again. Several of these may run at once, with different --only.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from elmo_chinese.training.metrics import read_metrics  # noqa: E402


class Recipe(NamedTuple):
    """Flags of train.py."""

    optim: str
    learning_rate: float
    lr_schedule: str
    reset_states: float


RECIPES = {
    "resets": [Recipe("adagrad", 0.2, "constant", share) for share in (0.0, 0.02, 0.05, 0.1)],
    "adam": [Recipe("adam", rate, "constant", 0.1) for rate in (0.0001, 0.0003, 0.001, 0.002, 0.004)],
    "rmsprop": [Recipe("rmsprop", rate, "constant", 0.1) for rate in (0.0003, 0.001, 0.003)],
    "constant": [Recipe("adagrad", 0.2, "constant", 0.1)],
    **{f"linear_{rate}": [Recipe("adagrad", rate, "linear", 0.1)] for rate in (0.4, 0.8)},
}
SIZES = ["--embed_size", "96", "--hidden_size", "384", "--batch_size", "32", "--num_steps", "20", "--dropout", "0.1"]
SIZES += ["--sample_softmax", "true", "--n_negative_samples_batch", "1000", "--shuffle", "true"]
FIGURES = ("sampled loss", "gradient norm", "dev forward", "dev backward", "zero_state_ratio", "cells at clip")


def train(words, folder, recipe, more):
    """Train one recipe unless that is done; return the records of training and of evaluations, none if it stopped."""
    log = folder / "log" / "metrics.jsonl"
    command = [sys.executable, ROOT / "train.py", *SIZES, "--load_dir", "auto", "--para_save_dir", folder]
    command += ["--train_path", words / "train", "--test_path", words / "dev", "--log_interval", 100]
    command += ["--vocab_path", words / "vocabulary.txt"]
    command += [part for name, value in recipe._asdict().items() for part in (f"--{name}", value)]
    done = folder / "done"
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / "output.txt", "a", encoding="utf-8") as output:
            ended = subprocess.run([*map(str, command), *more], cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
        if ended.returncode == 0:
            done.touch()
    records = read_metrics(log) if log.exists() else []
    dev = [record for record in records if record["kind"] == "dev"] if done.exists() else []
    return [record for record in records if record["kind"] == "train"], dev


def row(recipe, seed, trained, dev):
    """Return a line of the table."""
    names = [*map(str, recipe), str(seed)]
    if not (trained and dev):
        return "| " + " | ".join([*names, "stopped: see its output.txt", *[""] * (len(FIGURES) - 1)]) + " |"
    trained, dev = trained[-1], dev[-1]
    figures = [f"{trained['sampled_loss']:.2f}", f"{trained['grad_norm']:.1f}"]
    figures += [f"{dev[name]:.0f}" for name in ("perplexity_forward", "perplexity_backward")]
    figures += [f"{dev['zero_state_ratio']:.2f}", f"{trained['cells_at_clip']:.3f}"]
    return "| " + " | ".join([*names, *figures]) + " |"


def minutes(trained, dev, words_a_step):
    """Return when each evaluation began, by the run's undisturbed speed: other work beside it is not its fault."""
    speed = np.quantile([record["tokens_per_second"] for record in trained], 0.9)
    return [record["step"] * words_a_step / speed / 60 for record in dev]


def curves(output, words_a_step):
    """Return `{label: (minutes, perplexities)}` of the runs that are finished."""
    found = {}
    for done in sorted(output.glob("*/done")):
        optim, rate, schedule, resets, seed, passes = done.parent.name.split("_")
        records = read_metrics(done.parent / "log" / "metrics.jsonl")
        trained, dev = ([record for record in records if record["kind"] == kind] for kind in ("train", "dev"))
        label = f"{optim} {rate} {schedule}, resets {resets}, {passes} passes, seed {seed}"
        found[label] = minutes(trained, dev, words_a_step), [record["perplexity"] for record in dev]
    return found


def plot(curves, path):
    """Draw `{label: (minutes, perplexities)}`."""
    import matplotlib  # comes with visualdl

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 4))
    for label, curve in curves.items():
        axes.plot(*curve, "o-", markersize=3, label=label)
    axes.set_xlabel("minutes of training")
    axes.set_ylabel("held-out perplexity")
    axes.set_yscale("log")
    axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1), fontsize="small")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main():
    """Train what is missing, print the table, draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--words", type=Path, required=True, help="folder with train/, dev/ and vocabulary.txt")
    parser.add_argument("--output", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--only", nargs="+", default=list(RECIPES)[:3], choices=RECIPES, help="these recipes")
    parser.add_argument("--passes", type=float, nargs="+", default=[1.0], help="over the text")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("flags", nargs="*", help="flags of train.py")
    options = parser.parse_args()
    words, output = options.words.resolve(), options.output.resolve()
    print("| " + " | ".join([*Recipe._fields, "seed", *FIGURES]) + " |", flush=True)
    print("|---" * (len(Recipe._fields) + 1 + len(FIGURES)) + "|", flush=True)
    sizes = dict(zip(*[iter([*SIZES, *options.flags])] * 2))
    for recipe in (recipe for group in options.only for recipe in RECIPES[group]):
        for passes, seed in ((passes, seed) for passes in options.passes for seed in options.seeds):
            folder = output / "_".join(map(str, (*recipe, seed, passes)))
            more = ["--max_epoch", str(passes), "--random_seed", str(seed), *options.flags]
            trained, dev = train(words, folder, recipe, more)
            print(row(recipe, seed, trained, dev), flush=True)
    plot(curves(output, int(sizes["--batch_size"]) * int(sizes["--num_steps"])), output / "recipes.png")


if __name__ == "__main__":
    main()
