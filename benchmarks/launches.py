"""What a training step asks of the device, where C++ does not do it: python benchmarks/launches.py

Of the path of Paddle operators (that of GPUs, and of machines without a compiler), at the mid sizes of throughput.py
with sampled softmax, in one JSON line:

    operators            of a step in Paddle's profile: what its API calls, without the marks of the backward pass
    per_time_step        how many more with one more time step
    host_ms              a step's random numbers drawn in NumPy at the released sizes, while the device may wait
    bytes_to_device      handed over by `paddle.to_tensor` in a step at the released sizes
    reads                a step's reads of tensors back into Python, each of which waits for the device
    speed_of_cpp         its tokens/s on this CPU by those of the C++ path: steps in turn, the median of pairs
    operators_by_name    the most frequent

Neither numbers drawn nor bytes depend on the size of the cells, which is small where they are measured.
"""

import argparse
import collections
import contextlib
import json
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from elmo_chinese.network import kernels, language_model  # noqa: E402

import numpy as np  # noqa: E402
import paddle  # noqa: E402
import paddle.profiler as profiler  # noqa: E402
from steps import Steps  # noqa: E402
from throughput import LAYERS, PRESETS, zipf_batches  # noqa: E402

import bilm  # noqa: E402
from train import make_optimizer  # noqa: E402

READS = "numpy", "item", "tolist", "__float__", "__int__", "__bool__", "__index__"


@contextlib.contextmanager
def instead(owner, **functions):
    """Put functions in place of those of a module or class."""
    before = {name: getattr(owner, name) for name in functions}
    for name, function in functions.items():
        setattr(owner, name, function)
    try:
        yield
    finally:
        for name, function in before.items():
            setattr(owner, name, function)


class Training:
    """A model in training; `step` does one step.

    Args:
        size: as one of throughput.py's presets.
        negatives: 0 for the exact softmax.
        sparse: row-sparse gradients of the word tables.
    """

    def __init__(self, size, negatives, sparse=True):
        paddle.seed(0)
        sizes = size["vocab_size"], size["embed"], size["hidden"], LAYERS
        self.lm = bilm.BiLM(*sizes, n_negative_samples=negatives, sparse=sparse)
        self.optimizer = make_optimizer("adagrad", 0.2, self.lm.parameters())
        self.steps, self.batch = Steps(self.lm, self.optimizer), next(zipf_batches(size, 1))

    def step(self):
        self.steps.step(self.batch)


def operators(step):
    """Return how often a call of `step` launches each operator, by name."""
    counted = collections.Counter()

    def count(nodes):
        for node in nodes:
            if node.type == paddle.base.core.TracerEventType.Operator and node.name.endswith(" dygraph"):
                counted[node.name.split(" ")[0]] += 1
            count(node.children_node)

    watch = profiler.Profiler(targets=[profiler.ProfilerTarget.CPU], on_trace_ready=lambda found: None)
    with watch:
        step()
    count(watch.profiler_result.get_data().values())
    return counted


def traffic(step):
    """Return the bytes that a call of `step` hands to the device, and how often it reads something back."""
    sent, reads, reading, send = [], [], [], paddle.to_tensor

    def sending(data, *arguments, **named):
        tensor = send(data, *arguments, **named)
        sent.append(0 if isinstance(data, paddle.Tensor) else tensor.size * tensor.element_size())
        return tensor

    def counted(read):
        def reading_one(*arguments):
            reads.extend([read.__name__] * (not reading))  # one read may be made of another
            reading.append(True)
            try:
                return read(*arguments)
            finally:
                reading.pop()

        return reading_one

    with instead(paddle, to_tensor=sending):
        with instead(paddle.Tensor, **{name: counted(getattr(paddle.Tensor, name)) for name in READS}):
            step()
    return sum(sent), len(reads)


def host_seconds(step):
    """Return the time that a call of `step` spends drawing random numbers in NumPy."""
    seconds, drawing = [], []

    def timed(function):
        def watched(*arguments):
            outermost, start = not drawing, time.perf_counter()
            drawing.append(True)
            found = function(*arguments)
            drawing.pop()
            if outermost:
                seconds.append(time.perf_counter() - start)
            return found

        return watched

    of_step = {name: timed(getattr(bilm.StepRandom, name)) for name in ("generator", "bits", "keep_mask")}
    with instead(bilm.StepRandom, **of_step):
        with instead(language_model, log_uniform_sample=timed(language_model.log_uniform_sample)):
            step()
    return sum(seconds)


def without_cpp():
    return instead(kernels, library=lambda: None)


def speed_of_cpp(training, pairs):
    """Return the median ratio of the times of a step with and without C++, one after the other; None without C++."""
    if not kernels.library():
        return None
    ratios = []
    for _ in range(pairs + 1):
        start = time.perf_counter()
        training.step()
        middle = time.perf_counter()
        with without_cpp():
            training.step()
        ratios.append((middle - start) / (time.perf_counter() - middle))
    return round(float(np.median(ratios[1:])), 3)  # the first pair sets memory aside


def main():
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="mid", help="sizes of what is counted and timed")
    parser.add_argument("--softmax", choices=["full", "sampled"], default="sampled")
    parser.add_argument("--dense", action="store_true", help="dense gradients of the word tables")
    parser.add_argument("--pairs", type=int, default=4, help="steps of each path that are timed; 0: none")
    options = parser.parse_args()
    paddle.set_device("cpu")

    def training(size):
        made = Training(size, size["samples"] if options.softmax == "sampled" else 0, not options.dense)
        with without_cpp():
            made.step()  # the first one has no states yet
        return made

    size, released = PRESETS[options.preset], training({**PRESETS["full"], "hidden": 64})
    timed = training(size)
    with without_cpp():
        found = operators(timed.step)
        longer = operators(training({**size, "steps": size["steps"] + 1}).step)
        sent, reads = traffic(released.step)
        host = min(host_seconds(released.step) for _ in range(5))
    figures = {
        "preset": options.preset,
        "softmax": options.softmax,
        "operators": sum(found.values()),
        "per_time_step": sum(longer.values()) - sum(found.values()),
        "host_ms": round(1e3 * host, 2),
        "bytes_to_device": sent,
        "reads": reads,
        "speed_of_cpp": speed_of_cpp(timed, options.pairs) if options.pairs else None,
        "operators_by_name": dict(found.most_common(12)),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
