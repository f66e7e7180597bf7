"""How fast the language model trains: python benchmarks/throughput.py --preset mid --softmax sampled

Random words with Zipf frequencies through the real training step: embedding, LSTMs, softmax, backward,
clipping, Adagrad, carried state. The last line is one JSON object:

    tokens_per_s         a token counts once, although both directions are trained
    step_ms_median/min/max
    gflop_per_s          of the step's matrix products
    limit_tokens_per_s   if only the step's matrix products ran, each timed alone at its shape in this process
    of_limit             tokens_per_s / limit_tokens_per_s
    peak_rss_mb

--processes 2 shares the batch and the threads among so many processes (data parallel, through Paddle's launcher).
--profile trains with train.py's own loop on a text of such words, reader and logs included, and prints where the time
of a step goes.
--against FILE.py runs another trainer's script (same sizes as flags, one JSON line with tokens_per_s) in turn
with this one, A B A B, each in a process of its own, and prints the ratio pair by pair.
"""

import argparse
import collections
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PRESETS = {
    "tiny": dict(vocab_size=1000, embed=32, hidden=64, batch=8, steps=10, samples=64),
    "mid": dict(vocab_size=20000, embed=256, hidden=1024, batch=64, steps=20, samples=2048),
    "full": dict(vocab_size=52445, embed=512, hidden=4096, batch=128, steps=20, samples=8192),
}
LAYERS = 2


def zipf_batches(size, count, seed=0):
    """Yield batches of random words, consecutive windows of one stream a row, as `steps.Steps` takes them."""
    import numpy as np

    share = 1 / np.arange(1, size["vocab_size"] - 3)
    cumulative = np.cumsum(share / share.sum())
    words = np.random.default_rng(seed).random((size["batch"], count * size["steps"] + 1))
    stream = 4 + np.searchsorted(cumulative, words).clip(max=len(cumulative) - 1).astype(np.int64)
    for number in range(count):
        window = stream[:, number * size["steps"] : (number + 1) * size["steps"] + 1]
        yield window[:, :-1], window[:, 1:], window[:, :0:-1], window[:, -2::-1]


def products(size, columns):
    """Return the matrix products of a step as `(how often, m, k, n, transposed x, transposed y)`."""
    embed, hidden, rows = size["embed"], size["hidden"], size["batch"]
    tokens, layers, gates = rows * size["steps"], 2 * LAYERS, 4 * hidden
    steps = layers * size["steps"]
    return [
        (layers, tokens, embed, gates, False, False),  # input projection, and its two gradients
        (layers, tokens, gates, embed, False, True),
        (layers, embed, tokens, gates, True, False),
        (steps, rows, embed, gates, False, False),  # recurrence
        (steps, rows, gates, embed, False, True),
        (layers, embed, tokens, gates, True, False),
        (steps, rows, hidden, embed, False, False),  # projection
        (steps, rows, embed, hidden, False, True),
        (layers, hidden, tokens, embed, True, False),
        (2, tokens, embed, columns, False, True),  # softmax of both directions
        (2, tokens, columns, embed, False, False),
        (2, columns, tokens, embed, True, False),
    ]


def limit(size, columns):
    """Return the seconds and the FLOP of a step's matrix products, each timed alone."""
    import paddle

    seconds = flop = 0.0
    for count, m, k, n, transpose_x, transpose_y in products(size, columns):
        x = paddle.rand([k, m] if transpose_x else [m, k])
        y = paddle.rand([n, k] if transpose_y else [k, n])
        times = []
        for _ in range(7):
            start = time.perf_counter()
            paddle.matmul(x, y, transpose_x, transpose_y)
            times.append(time.perf_counter() - start)
        seconds += count * sorted(times)[len(times) // 2]
        flop += count * 2.0 * m * k * n
    return seconds, flop


def measure(options, size):
    """Train and return the figures."""
    sys.path.insert(0, str(ROOT))
    from elmo_chinese import runtime
    from elmo_chinese.network import kernels
    from elmo_chinese.network.gradients import data_parallel
    from elmo_chinese.training.session import choose_device

    import numpy as np
    import paddle
    import paddle.distributed as dist
    from steps import Steps

    from bilm import BiLM
    from train import make_optimizer

    choose_device(use_gpu=False)
    print(f"{runtime.SETTINGS}; {kernels.describe()}", file=sys.stderr)
    paddle.seed(0)
    samples = size["samples"] if options.softmax == "sampled" else 0
    how = dict(n_negative_samples=samples, sparse=not options.dense, precision=options.precision)
    lm = BiLM(size["vocab_size"], size["embed"], size["hidden"], LAYERS, **how)
    optimizer = make_optimizer("adagrad", 0.2, lm.parameters())
    times, processes = [], dist.get_world_size()
    model, rows = (data_parallel(lm) if processes > 1 else lm), size["batch"] // processes
    mine = slice(rows * dist.get_rank(), rows * (dist.get_rank() + 1))
    job = Steps(model, optimizer, mine.start)
    for number, batch in enumerate(zipf_batches(size, options.iters + 2)):
        start = time.perf_counter()
        batch = [words[mine] for words in batch]
        loss, _ = job.step(batch)
        if number >= 2:
            times.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    del lm, model, optimizer, job
    seconds, flop = limit(size, samples + 1 if samples else size["vocab_size"])
    tokens, median = size["batch"] * size["steps"], float(np.median(times))
    return {
        "preset": options.preset,
        "softmax": options.softmax,
        "tokens_per_s": round(tokens / median, 1),
        "step_ms_median": round(1e3 * median, 2),
        "step_ms_min": round(1e3 * min(times), 2),
        "step_ms_max": round(1e3 * max(times), 2),
        "gflop_per_s": round(flop / median / 1e9, 1),
        "limit_tokens_per_s": round(tokens / seconds, 1),
        "of_limit": round(seconds / median, 3),
        "peak_rss_mb": round(peak, 1),
        "loss": round(loss, 4),
        "threads": int(os.environ["MKL_NUM_THREADS"]),
        "processes": processes,
    }


def own_flags(options, size):
    """Return the flags that make another process of this benchmark do the same."""
    flags = {"preset": options.preset, "softmax": options.softmax, "iters": options.iters, **size}
    flags["precision"] = options.precision
    return [f"--{name}={value}" for name, value in flags.items()]


def in_processes(options, size):
    """Run this benchmark through Paddle's launcher; return the figures of the first process."""
    own = own_flags(options, size)
    threads = str(max(1, options.threads // options.processes))
    with tempfile.TemporaryDirectory() as logs:
        launcher = ["paddle.distributed.launch", "--nproc_per_node", str(options.processes), "--log_dir", logs]
        environment = {**os.environ, "MKL_NUM_THREADS": threads, "PADDLE_DISTRI_BACKEND": "gloo"}
        command = [sys.executable, "-m", *launcher, __file__, *own]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        output = (Path(logs) / "workerlog.0").read_text(encoding="utf-8")
    if done.returncode:
        sys.exit(f"the launcher failed:\n{output[-2000:]}")
    return json.loads(next(line for line in reversed(output.splitlines()) if line.startswith("{")))


class Stopwatch:
    """Adds up the time spent in functions, without what other watched functions took inside them."""

    def __init__(self):
        self.seconds, self._inside = collections.Counter(), []

    def watch(self, label, function):
        def watched(*arguments, **named):
            start = time.perf_counter()
            self._inside.append(0.0)
            try:
                return function(*arguments, **named)
            finally:
                total = time.perf_counter() - start
                self.seconds[label] += total - self._inside.pop()
                if self._inside:
                    self._inside[-1] += total

        return watched

    def watch_all(self, label, owner, *names):
        for name in names:
            watched = self.watch(label, getattr(owner, name))
            setattr(owner, name, staticmethod(watched) if hasattr(owner, "apply") else watched)


def profile(options, size):
    """Train with train.py on a text, and return the milliseconds of a step by what they were spent on."""
    sys.path.insert(0, str(ROOT))

    from elmo_chinese.network import kernels, lstmp, softmax
    from elmo_chinese.training import loop

    import numpy as np
    import paddle

    import bilm
    import train

    watch = Stopwatch()
    watch.watch_all("recurrence and input projection", kernels, "call")
    watch.watch_all("LSTM weight gradients, copies", lstmp._Steps, "forward", "backward")
    for layer in (softmax._FullSoftmax, softmax._SampledSoftmax):
        watch.watch_all("softmax", layer, "forward", "backward")
    watch.watch_all("softmax", softmax, "_normalize", "_gradients")
    watch.watch_all("softmax", bilm, "full_softmax_losses", "sampled_softmax_losses", "log_uniform_sample")
    watch.watch_all("dropout masks", bilm.StepRandom, "keep_factor")
    watch.watch_all("embedding, rest of the backward pass", paddle.Tensor, "backward")
    watch.watch_all("clipping", loop, "step_figures", "scale_gradients")
    watch.watch_all("logging", loop, "log_step", "say")
    watch.watch_all("rest of the forward pass and step", loop, "do_step")
    watch.watch_all("optimizer", paddle.optimizer.Adagrad, "step")
    step = loop.do_step

    def counted(*arguments, **named):
        counted.calls += 1
        if counted.calls == 3:  # what comes before is not like the rest
            watch.seconds.clear()
            counted.start = time.perf_counter()
        return step(*arguments, **named)

    counted.calls, loop.do_step = 0, counted
    batches = train.BidirectionalReader.__iter__

    def read(reader):
        made = batches(reader)
        take = watch.watch("reader", lambda: next(made))
        while True:
            yield take()

    train.BidirectionalReader.__iter__ = read
    with tempfile.TemporaryDirectory() as folder:
        words = [f"w{number}" for number in range(size["vocab_size"] - 3)]
        Path(folder, "vocabulary.txt").write_text("\n".join(["<S>", "</S>", "<UNK>", *words]) + "\n", encoding="utf-8")
        tokens = (options.iters + 3) * size["batch"] * size["steps"]
        share = 1 / np.arange(1, len(words) + 1)
        drawn = np.random.default_rng(0).choice(words, tokens, p=share / share.sum())
        lines = (" ".join(drawn[start : start + 20]) for start in range(0, tokens, 20))
        Path(folder, "text.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        flags = dict(
            vocab_path=f"{folder}/vocabulary.txt", train_path=f"{folder}/text.txt", para_save_dir=f"{folder}/run",
            cache_dir=f"{folder}/cache", embed_size=size["embed"], hidden_size=size["hidden"], max_epoch=1,
            batch_size=size["batch"], num_steps=size["steps"], sample_softmax=options.softmax == "sampled",
            n_negative_samples_batch=size["samples"], log_interval=1, save_interval=10**6, use_gpu="false",
        )  # fmt: skip
        save, loop.save = loop.save, lambda *arguments: None
        train.main([part for name, value in flags.items() for part in (f"--{name}", str(value))])
        loop.save = save
    total, steps = time.perf_counter() - counted.start, counted.calls - 2
    watch.seconds["loop"] = total - sum(watch.seconds.values())
    rows = {label: 1e3 * seconds / steps for label, seconds in watch.seconds.most_common()}
    for label, milliseconds in [*rows.items(), ("a step", 1e3 * total / steps)]:
        print(f"{label:40} {milliseconds:9.2f} ms {100 * milliseconds * steps / (1e3 * total):6.2f} %")
    return {label: round(milliseconds, 3) for label, milliseconds in rows.items()}


def against(options, size):
    """Run this benchmark and another script in turn; print the ratio of tokens/s of each pair."""
    own = own_flags(options, size)
    flags = [f"--{name}={value}" for name, value in size.items()] + [f"--softmax={options.softmax}"]
    flags += [f"--iters={options.iters}", f"--threads={options.threads}", f"--layers={LAYERS}"]
    ratios = []
    for number in range(options.pairs):
        figures = []
        for command in ([sys.executable, __file__, *own], [options.python, options.against, *flags]):
            environment = {**os.environ, "MKL_NUM_THREADS": str(options.threads)} if command[1] == __file__ else None
            done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment)
            if done.returncode:
                sys.exit(f"{command[1]} failed:\n{done.stderr[-2000:]}")
            figures.append(json.loads(done.stdout.strip().splitlines()[-1]))
        ratios.append(figures[0]["tokens_per_s"] / figures[1]["tokens_per_s"])
        print(
            f"pair {number + 1}: {figures[0]['tokens_per_s']} / {figures[1]['tokens_per_s']} = {ratios[-1]:.2f}",
            flush=True,
        )
        rest = {"peer_peak_rss_mb": figures[1].get("peak_rss_mb"), "peer_tokens_per_s": figures[1]["tokens_per_s"]}
    return {
        **figures[0],
        **rest,
        "ratios": [round(ratio, 3) for ratio in ratios],
        "ratio": round(sorted(ratios)[len(ratios) // 2], 3),
    }


def main():
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="mid")
    parser.add_argument("--softmax", choices=["full", "sampled"], default="sampled")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="math threads")
    parser.add_argument("--iters", type=int, default=10, help="steps that are timed, after two that are not")
    parser.add_argument("--against", help="another trainer's script")
    parser.add_argument("--python", default=sys.executable, help="interpreter for --against")
    parser.add_argument("--pairs", type=int, default=2)
    parser.add_argument("--processes", type=int, default=1, help="processes that share the batch and the threads")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--dense", action="store_true", help="dense gradients of the word tables")
    parser.add_argument("--profile", action="store_true", help="print where the time of a step goes")
    for name in PRESETS["mid"]:
        parser.add_argument(f"--{name}", type=int, help="instead of the preset's")
    options = parser.parse_args()
    os.environ.setdefault("MKL_NUM_THREADS", str(options.threads))
    size = {name: getattr(options, name) or value for name, value in PRESETS[options.preset].items()}
    if options.against:
        figures = against(options, size)
    elif options.processes > 1:
        figures = in_processes(options, size)
    else:
        figures = (profile if options.profile else measure)(options, size)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
