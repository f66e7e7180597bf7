"""What `autograd=True` costs: CPU time of a training step through a finetuned encoder, with and without, in turn.

python benchmarks/autograd.py
"""

import argparse
import resource
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import paddle

from bilm import ElmoEncoder

# Vocabulary and sizes of the demonstration (run.sh on a CPU).
SIZES = dict(vocab_size=1000, embed_size=64, hidden_size=256)


def seconds(encoder, word_ids, steps):
    """Return the CPU time of a step, in seconds."""
    start = resource.getrusage(resource.RUSAGE_SELF)
    for _ in range(steps):
        encoder(word_ids).sum().backward()
        encoder.clear_gradients()
    end = resource.getrusage(resource.RUSAGE_SELF)
    return (end.ru_utime + end.ru_stime - start.ru_utime - start.ru_stime) / steps


def main():
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32, help="sentences (default: 32)")
    parser.add_argument("--words", type=int, default=20, help="words of a sentence (default: 20)")
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument("--steps", type=int, default=5, help="of each in a round (default: 5)")
    options = parser.parse_args()
    paddle.set_device("cpu")
    word_ids = paddle.to_tensor(
        np.random.default_rng(0).integers(0, SIZES["vocab_size"], [options.batch, options.words])
    )
    encoders = [ElmoEncoder(**SIZES, finetune=True, autograd=autograd) for autograd in (False, True)]
    for encoder in encoders:
        seconds(encoder, word_ids, 2)
    found = [[seconds(encoder, word_ids, options.steps) for encoder in encoders] for _ in range(options.rounds)]
    own, autograd = (statistics.median(times) * 1000 for times in zip(*found))
    ratio = statistics.median(of_autograd / of_own for of_own, of_autograd in found)
    print(f"own backward pass {own:.1f} ms, autograd=True {autograd:.1f} ms, ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
