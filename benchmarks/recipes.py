"""What optimizer, learning rate and resets of the state are worth on a text of yours:

    python preprocess.py sentences --input news.txt --output words
    python preprocess.py vocabulary --input words/train --output words/vocabulary.txt --min_count 2
    python benchmarks/recipes.py --words words --output runs [--only adam] [--passes 0.5]

Trains each of RECIPES twice, with sampled softmax and prints a Markdown table. What is finished in OUTPUT is not
trained again. Several of these may run at once, with different --only.
"""

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from elmo_chinese.metrics import read_metrics  # noqa: E402

COLUMNS = ("optimizer", "rate", "reset_states", "seed", "sampled loss", "gradient norm", "dev forward", "dev backward",
           "zero_state_ratio", "cells at clip")  # fmt: skip
# optimizer, learning rate, reset_states
RECIPES = [
    *(("adagrad", 0.2, share) for share in (0.0, 0.02, 0.05, 0.1)),
    *(("adam", rate, 0.1) for rate in (0.0001, 0.0003, 0.001, 0.002, 0.004)),
    *(("rmsprop", rate, 0.1) for rate in (0.0003, 0.001, 0.003)),
]
SEEDS = (0, 1)
SIZES = ["--embed_size", "96", "--hidden_size", "384", "--batch_size", "32", "--num_steps", "20", "--dropout", "0.1"]
SIZES += ["--sample_softmax", "true", "--n_negative_samples_batch", "1000", "--shuffle", "true"]


def train(words, folder, recipe, passes):
    """Train one recipe; return its last records of training and evaluation, the second None if it stopped."""
    optim, rate, resets, seed = recipe
    log = folder / "log" / "metrics.jsonl"
    command = [sys.executable, ROOT / "train.py", *SIZES, "--load_dir", "auto", "--para_save_dir", folder]
    command += ["--train_path", words / "train", "--test_path", words / "dev"]
    command += ["--vocab_path", words / "vocabulary.txt", "--max_epoch", passes, "--log_interval", 100]
    command += ["--optim", optim, "--learning_rate", rate, "--reset_states", resets, "--random_seed", seed]
    if not (log.exists() and read_metrics(log)[-1:] and read_metrics(log)[-1]["kind"] == "dev"):
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / "output.txt", "w", encoding="utf-8") as output:
            subprocess.run([*map(str, command)], cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
    records = read_metrics(log)
    dev = records[-1] if records and records[-1]["kind"] == "dev" else None
    return [record for record in records if record["kind"] == "train"][-1:], dev


def row(recipe, trained, dev):
    """Return a line of the table."""
    if not (trained and dev):
        return "| " + " | ".join([*map(str, recipe), "stopped: see its output.txt", *[""] * 5]) + " |"
    (trained,) = trained
    figures = [f"{trained['sampled_loss']:.2f}", f"{trained['grad_norm']:.1f}"]
    figures += [f"{dev[name]:.0f}" for name in ("perplexity_forward", "perplexity_backward")]
    figures += [f"{dev['zero_state_ratio']:.2f}", f"{trained['cells_at_clip']:.3f}"]
    return "| " + " | ".join([*map(str, recipe), *figures]) + " |"


def main():
    """Train what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--words", type=Path, required=True, help="folder with train/, dev/ and vocabulary.txt")
    parser.add_argument("--output", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--only", nargs="+", default=["adagrad", "adam", "rmsprop"], help="these optimizers")
    parser.add_argument("--passes", type=float, default=1.0, help="over the text")
    options = parser.parse_args()
    words, output = options.words.resolve(), options.output.resolve()
    print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|", flush=True)
    for recipe in ((*recipe, seed) for recipe in RECIPES for seed in SEEDS):
        if recipe[0] in options.only:
            folder = output / "_".join(map(str, (*recipe, options.passes)))
            print(row(recipe, *train(words, folder, recipe, options.passes)), flush=True)


if __name__ == "__main__":
    main()
