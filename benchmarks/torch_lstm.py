"""The same language model as PyTorch users write it, to be timed against this project.

    python -m venv torch_env && torch_env/bin/pip install torch numpy
    python benchmarks/throughput.py --preset mid --against benchmarks/torch_lstm.py --python torch_env/bin/python

`torch.nn.LSTM` with a projection for each layer and direction (it has no clips), a residual connection from the second
layer on, exact or sampled softmax, states carried from batch to batch, Adagrad, clipping by the global norm. The last
line is a JSON object with `tokens_per_s` (a token counts once, although both directions are trained) and `peak_rss_mb`.
--bf16 computes the products in bfloat16 (autocast).
"""

import argparse
import json
import math
import os
import resource
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

from throughput import LAYERS, PRESETS, zipf_batches  # noqa: E402

WARM_UP = 2


def make_model(torch, size):
    """Return the parts of the model: embedding, LSTM layers by direction, output layer."""
    lstm = [
        [torch.nn.LSTM(size.embed, size.hidden, proj_size=size.embed, batch_first=True) for _ in range(LAYERS)]
        for _ in range(2)
    ]
    embedding = torch.nn.Embedding(size.vocab_size, size.embed)
    output = torch.nn.Linear(size.embed, size.vocab_size)
    torch.nn.init.normal_(output.weight, std=size.embed**-0.5)
    return embedding, lstm, output


def draw(size, random):
    """Return different words of a log-uniform law, and the logarithm of how often each is expected."""
    draws = np.exp(random.random(3 * size.samples) * math.log(size.vocab_size + 1)).astype(np.int64) - 1
    words = random.permutation(np.unique(draws.clip(0, size.vocab_size - 1)))[: size.samples]
    return words, len(draws)


def sampled_loss(torch, hidden, output, labels, size, random):
    """Return the mean cross entropy over each token's own word and shared negatives."""
    words, tries = draw(size, random)
    words = torch.from_numpy(words)

    def log_count(ids):
        share = torch.log((ids + 2.0) / (ids + 1.0)) / math.log(size.vocab_size + 1)
        return torch.log(-torch.expm1(tries * torch.log1p(-share)))

    own = (hidden * output.weight[labels]).sum(1) + output.bias[labels] - log_count(labels)
    others = hidden @ output.weight[words].t() + output.bias[words] - log_count(words)
    others = others.masked_fill(words == labels[:, None], -1e4)
    logits = torch.cat([own[:, None], others], dim=1)
    return torch.nn.functional.cross_entropy(logits, torch.zeros_like(labels))


def losses(torch, model, batch, states, size, random):
    """Yield the loss of each direction; `states` is renewed."""
    embedding, lstm, output = model
    for direction, (words, labels) in enumerate((batch[:2], batch[2:])):
        hidden = embedding(torch.from_numpy(np.ascontiguousarray(words)))
        for index, layer in enumerate(lstm[direction]):
            inputs = torch.nn.functional.dropout(hidden, 0.1)
            hidden, state = layer(inputs, states[direction][index])
            states[direction][index] = tuple(tensor.detach() for tensor in state)
            hidden = hidden + inputs if index else hidden
        hidden = torch.nn.functional.dropout(hidden, 0.1).reshape(-1, size.embed)
        labels = torch.from_numpy(np.ascontiguousarray(labels)).flatten()
        if size.softmax == "sampled":
            yield sampled_loss(torch, hidden, output, labels, size, random)
        else:
            yield torch.nn.functional.cross_entropy(output(hidden), labels)


def main():
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in PRESETS["mid"].items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--softmax", choices=["full", "sampled"], default="sampled")
    parser.add_argument("--layers", type=int, choices=[LAYERS], default=LAYERS)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--iters", type=int, default=10)
    parser.add_argument("--bf16", action="store_true")
    size = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(size.threads)
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(size.threads)
    random, model = np.random.default_rng(0), make_model(torch, size)
    modules = [model[0], *model[1][0], *model[1][1], model[2]]
    parameters = [parameter for module in modules for parameter in module.parameters()]
    optimizer = torch.optim.Adagrad(parameters, lr=0.2, initial_accumulator_value=1.0)
    states, seconds = [[None] * LAYERS for _ in range(2)], []
    for batch in zipf_batches(vars(size), size.iters + WARM_UP):
        start = time.perf_counter()
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=size.bf16):
            loss = sum(losses(torch, model, batch, states, size, random)) / 2
        (loss * size.steps).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 10.0)
        optimizer.step()
        seconds.append(time.perf_counter() - start)
    figures = {
        "tokens_per_s": round(size.batch * size.steps / float(np.median(seconds[WARM_UP:])), 1),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "loss": round(float(loss.detach()), 4),
        "torch": torch.__version__,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
