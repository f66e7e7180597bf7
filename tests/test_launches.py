"""benchmarks/launches.py: what a step without C++ asks of a device does not creep up again."""

import sys

import pytest
from conftest import ROOT

sys.path.append(str(ROOT / "benchmarks"))

import launches  # noqa: E402

SIZE = dict(vocab_size=300, embed=8, hidden=12, batch=4, steps=3, samples=20)


def step(size, negatives=20):
    training = launches.Training(size, negatives)
    with launches.without_cpp():
        training.step()
    return training.step


@pytest.mark.skipif(not launches.paddle.__version__.startswith("2.6."), reason="each Paddle counts in its own way")
@pytest.mark.parametrize("negatives, most", [(20, 445), (0, 399)])
def test_operators_of_a_step_and_of_one_more_time_step(negatives, most):
    counts = []
    for steps in (SIZE["steps"], SIZE["steps"] + 1):
        run = step({**SIZE, "steps": steps}, negatives)
        with launches.without_cpp():
            counts.append(sum(launches.operators(run).values()))
    assert 350 < counts[0] <= most
    assert counts[1] - counts[0] <= 44  # 13 forward and 9 backward in each of two layers


def test_one_read_a_step_and_few_bytes_to_the_device():
    run = step(SIZE)
    with launches.without_cpp():
        sent, reads = launches.traffic(run)
        again = launches.traffic(step({**SIZE, "embed": 800}))[0]
    words, numbers = 8 * 4 * 4 * 3, 8 * 2 * 20 + 4 * 2
    assert reads == 1 and sent == words + numbers + 4 * (3 * 2 * 3 * 4 + 8)  # bits for each place and column of dropout
    assert again - sent == 4 * (800 - 8)
    assert 0 < launches.host_seconds(run) < 0.1


def test_the_benchmark_would_see_a_read():
    loss = launches.paddle.ones([3])
    assert launches.traffic(lambda: [float(loss[0]), loss.tolist(), bool(loss[1] > 0), loss.numpy()])[1] == 4
    assert launches.traffic(lambda: launches.paddle.to_tensor([1.0, 2.0]))[0] == 8
