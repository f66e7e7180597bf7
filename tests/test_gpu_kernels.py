"""Every operator of a step, an evaluation, the encoder, the tagger and the reader has a kernel for GPUs in Paddle.

No GPU is needed. On the CPU, on the path without C++, Paddle's profiler says what is called: that is what stands in
`gpu_kernels.txt`. With Paddle's GPU wheel, in an environment of its own, each of these names is looked for in its
registry: `python -m pytest tests/test_gpu_kernels.py`.
"""

import json
import re
from pathlib import Path

from elmo_chinese.network import kernels

import numpy as np
import paddle
import pytest
from paddle import profiler
from paddle.framework import core

import train
from benchmarks.steps import Steps
from bilm import BiLM, ElmoEncoder, StepRandom
from lac.network import Tagger
from mrc.network import Batch, Reader, costs, random_of

ROWS, STEPS, WORDS = 4, 5, 30
LIST = Path(__file__).with_name("gpu_kernels.txt")


def ids(*shape):
    return paddle.to_tensor(np.random.default_rng(0).integers(3, WORDS, shape))


def language_model(optimizer, samples=10):
    lm = BiLM(WORDS, 6, 8, 2, dropout=0.1, n_negative_samples=samples, sparse=optimizer == "adagrad")
    update = train.make_optimizer(optimizer, 0.1, lm.parameters())
    batch, job = [ids(ROWS, STEPS).numpy() for _ in range(4)], Steps(lm, update, accumulate=2, reset_states=0.5)
    for _ in range(2):
        job.step(batch)
    train.cells_at_clip(job.states, 3.0)
    lm.eval()
    lm(*map(paddle.to_tensor, batch), job.states)


def task_encoder(**more):
    return ElmoEncoder(WORDS, 6, 8, 2, dropout=0.5, **more)


def encoder():
    made = task_encoder(boundaries=True, finetune=True, layer_norm=True)
    made(ids(ROWS, STEPS), paddle.to_tensor([5, 4, 3, 2])).sum().backward()


def step(network, cost):
    update = paddle.optimizer.Adam(1e-3, parameters=network.trained_parameters())
    cost.backward()
    update.step()
    update.clear_grad()


def tagger():
    lengths = paddle.to_tensor([5, 4, 3, 2])
    for elmo in (None, task_encoder()):
        network = Tagger(WORDS, 7, 6, 8, 2, encoder=elmo)
        more = [ids(ROWS, STEPS), StepRandom(0, 1)] if elmo else []
        step(network, network.costs(ids(ROWS, STEPS), lengths, paddle.zeros([ROWS, STEPS], "int64"), *more).sum())
        network.eval()
        network(ids(ROWS, STEPS), lengths, *more[:1])


def reader():
    elmo = task_encoder(layer_norm=True)
    lengths, both = paddle.to_tensor([5, 4, 3, 2]), ids(ROWS, STEPS)
    documents, there = paddle.to_tensor([[0, 1]] * ROWS), paddle.to_tensor([[1.0, 1.0]] * ROWS)
    layers = elmo.layers(both, lengths)
    network = Reader(WORDS, 6, 8, encoder=elmo)
    start, end = network(Batch(both, lengths, both, lengths, documents, there, layers, layers), random_of(0, 1))
    step(network, costs(start, end, paddle.to_tensor([0, 1, 2, 3]), paddle.to_tensor([1, 2, 3, 3])).sum())


WORK = {
    **{f"train.py, {name}": lambda name=name: language_model(name) for name in ("adagrad", "adam", "sgd", "rmsprop")},
    "train.py, exact softmax": lambda: language_model("adagrad", 0),
    "encoder": encoder,
    "tagger": tagger,
    "reader": reader,
}


def called(work, folder):
    """Return the names of the kernels that some work calls."""
    with profiler.Profiler(targets=[profiler.ProfilerTarget.CPU], on_trace_ready=lambda _: None) as watched:
        work()
    watched.export(str(folder / "trace.json"), format="json")
    events = json.loads((folder / "trace.json").read_text(encoding="utf-8"))["traceEvents"]
    found = (re.match(r"(\w+) compute\[", event.get("name") or "") for event in events)
    return {match[1] for match in found if match}


@pytest.mark.skipif(paddle.is_compiled_with_cuda(), reason="the profiler of a Paddle for GPUs wants their driver")
@pytest.mark.skipif(not paddle.__version__.startswith("2.6."), reason="other versions have other names for kernels")
def test_the_list_is_what_is_called(tmp_path, monkeypatch):
    monkeypatch.setattr(kernels, "library", lambda: None)
    names = {name.rstrip("_") for work in WORK.values() for name in called(work, tmp_path)}
    assert names == set(LIST.read_text(encoding="utf-8").split())


@pytest.mark.skipif(not paddle.is_compiled_with_cuda(), reason="this Paddle is not built for GPUs")
def test_every_operator_has_a_kernel():
    registered, lacking = core._get_registered_phi_kernels("function"), []
    for name in LIST.read_text(encoding="utf-8").split():
        found = [re.findall(r"\w+", key) for key in registered[name]]
        types = {device: {key[-1] for key in found if key[0] == device} for device in ("CPU", "GPU")}
        # What has no float32 even on the CPU works on whole numbers.
        if not ({"float32"} & types["CPU"] or types["CPU"]) & types["GPU"]:
            lacking.append(name)
    assert not lacking
