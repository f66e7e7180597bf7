"""elmo_chinese/network/gradients.py: row-sparse gradients against dense ones and NumPy."""

import threading

from elmo_chinese.network import kernels
from elmo_chinese.network.gradients import Adagrad, gradient_norm, scale_gradients, share_row_gradients

import numpy as np
import paddle
import paddle.distributed as dist
import paddle.nn.functional as F
import pytest
from conftest import largest_difference

from benchmarks.steps import Steps
from bilm import BiLM
from train import make_optimizer


def clip_gradients(parameters, max_norm, optimizer=None):
    norm = gradient_norm(parameters)
    scale_gradients(parameters, norm, max_norm, optimizer)
    return norm


def looked_up(sparse):
    """Return a table and a dense parameter with gradients; rows are looked up more than once."""
    rng = np.random.default_rng(0)
    table, dense = (
        paddle.create_parameter(
            [n, 3], "float32", default_initializer=paddle.nn.initializer.Assign(rng.normal(size=(n, 3)))
        )
        for n in (7, 2)
    )
    ids = paddle.to_tensor([5, 1, 5, 5, 0])
    (F.embedding(ids, table, sparse=sparse).sum() + (F.embedding(ids[:2], table, sparse=sparse) ** 2).sum()).backward()
    (dense**2).sum().backward()
    return table, dense


@pytest.mark.parametrize("max_norm", [0.5, 1e9])
def test_norm_and_clipping_of_row_sparse_gradients_equal_dense_ones(max_norm):
    found = []
    for sparse in (False, True):
        parameters = looked_up(sparse)
        assert parameters[0].grad.is_selected_rows() == sparse
        expected = [np.zeros((7, 3)) if sparse else p.grad.numpy() for p in parameters[:1]] + [
            parameters[1].grad.numpy()
        ]
        norm = clip_gradients(parameters, max_norm)
        if not sparse:
            assert norm == pytest.approx(np.sqrt(sum((array**2).sum() for array in expected)), rel=1e-6)
        optimizer = paddle.optimizer.SGD(1.0, parameters=list(parameters))
        before = [p.numpy() for p in parameters]
        optimizer.step()
        found.append((norm, [b - p.numpy() for b, p in zip(before, parameters)]))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    for mine, right in zip(found[1][1], found[0][1]):
        assert largest_difference(mine, right) < 1e-6
    assert (max_norm == 0.5) == (np.sqrt(sum((update**2).sum() for update in found[1][1])) < 0.51)


def test_rows_of_several_processes_are_averaged_and_each_is_sent_once(monkeypatch):
    ids = [[5, 1, 5, 0], [1, 1, 5], [7, 5, 1, 2, 3]]  # of a process each; 1 and 5 stand for the negatives
    tables = [paddle.create_parameter([9, 4], "float32") for _ in ids]
    for number, (table, mine) in enumerate(zip(tables, ids), start=1):
        (number * F.embedding(paddle.to_tensor(mine), table, sparse=True)).sum().backward()
    expected = sum((n + 1) * np.bincount(mine, minlength=9) for n, mine in enumerate(ids))[:, None] / 3 * np.ones(4)
    barrier, given, sent = threading.Barrier(3), [None] * 3, []

    def all_reduce(tensor, op=dist.ReduceOp.SUM):
        number = int(threading.current_thread().name)
        given[number] = tensor.numpy()
        barrier.wait(30)
        paddle.assign(np.max(given, 0) if op == dist.ReduceOp.MAX else np.sum(given, 0), tensor)
        sent.append(tuple(tensor.shape))
        barrier.wait(30)

    monkeypatch.setattr(dist, "all_reduce", all_reduce)
    monkeypatch.setattr(dist, "get_world_size", lambda: 3)
    threads = [threading.Thread(target=share_row_gradients, args=([t],), name=str(n)) for n, t in enumerate(tables)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert sent == [(9,)] * 3 + [(6, 4)] * 3
    for table in tables:
        before = table.numpy()
        paddle.optimizer.SGD(1.0, parameters=[table]).step()
        assert largest_difference(before - table.numpy(), expected) < 1e-6


# Equal numbers are the worst for sums of 1,024 in float32: all are rounded the same way.
@pytest.mark.parametrize("equal, bound", [(True, 3e-6), (False, 1e-7)])
def test_norm_of_millions_of_numbers(equal, bound):
    parameter = paddle.create_parameter([4_000_001], "float32")
    factors = 1.2345678 if equal else paddle.to_tensor(np.random.default_rng(0).standard_normal(4_000_001, np.float32))
    (parameter * factors).sum().backward()
    exact = np.sqrt(np.square(parameter.grad.numpy(), dtype=np.float64).sum())
    assert clip_gradients([parameter], 1e9) == pytest.approx(exact, rel=bound)


@pytest.mark.parametrize("optim", ["adagrad", "sgd"])
@pytest.mark.parametrize("negatives", [0, 12])
def test_training_with_row_sparse_tables_equals_dense(optim, negatives):
    results = []
    for sparse in (False, True):
        paddle.seed(3)
        lm = BiLM(40, 6, 8, n_negative_samples=negatives, sparse=sparse)
        optimizer, rng = make_optimizer(optim, 0.3, lm.parameters()), np.random.default_rng(1)
        job = Steps(lm, optimizer, accumulate=2, max_grad_norm=0.3)
        for _ in range(4):
            loss, norm = job.step([rng.integers(0, 40, (4, 5)) for _ in range(4)])
        assert norm > 0.3  # the clip has bitten
        results.append([np.float32(loss), *(p.numpy() for p in lm.parameters())])
    for mine, right in zip(*results):
        assert largest_difference(mine, right) < 1e-6


@pytest.mark.parametrize("max_norm", [0.5, 1e9])
def test_adagrad_in_one_pass_equals_clipping_and_paddles_adagrad(max_norm, monkeypatch):
    if not Adagrad.in_cpp():
        pytest.skip("no C++ here")
    found = []
    for in_cpp in (True, False):
        if not in_cpp:
            monkeypatch.setattr(kernels, "library", lambda: None)
        parameters = looked_up(sparse=True)
        numbers = paddle.nn.initializer.Assign(np.random.default_rng(0).uniform(0.5, 0.5001, (300, 501)))
        large = paddle.create_parameter([300, 501], "float32", default_initializer=numbers)
        large.optimize_attr["learning_rate"] = 3.0
        optimizer = make_optimizer("adagrad", 0.3, [*parameters, large])
        for step in range(3):
            ((large * (step + 1.5)) ** 2).sum().backward()
            norm = clip_gradients([*parameters, large], max_norm, optimizer)
            optimizer.step()
            optimizer.clear_grad(set_to_zero=False)
        state, trained = optimizer.state_dict(), [*parameters, large]
        moments = [state[f"{parameter.name}_moment_0"] for parameter in trained]
        found.append([np.array(norm), *(tensor.numpy() for tensor in [*trained, *moments])])
    for mine, right in zip(*found):
        assert largest_difference(mine, right) < 1e-6 * max(1, np.abs(right).max())
