"""lstm_step.py: the C++ operator and the Paddle functions against each other, and what happens without a compiler."""

import numpy as np
import paddle
import pytest
from conftest import ROOT, largest_difference, run_python

import lstm_step
from lstm_step import PADDLE


@pytest.fixture
def fused():
    functions, why_not = lstm_step.compiled()
    if functions is None:
        pytest.skip(f"no C++ operator here: {why_not}")
    return functions


def random_tensors(*shapes, scale=1.0):
    rng = np.random.default_rng(0)
    return [paddle.to_tensor(rng.normal(0, scale, shape).astype("float32")) for shape in shapes]


@pytest.mark.parametrize("batch, size, scale", [(1, 1, 1.0), (3, 7, 3.0), (5, 64, 20.0)])
def test_both_give_the_same_with_clips_biting(fused, batch, size, scale):
    gate, cell, d_output, d_next = random_tensors((batch, 4 * size), *3 * [(batch, size)], scale=scale)
    bound = 0.8 * scale
    results = [functions.step(gate, cell, bound) for functions in (fused, PADDLE)]
    for mine, right in zip(*results):
        assert largest_difference(mine.numpy(), right.numpy()) < 2e-6 * max(1, scale)
    activated, next_cell, _ = results[1]
    gradients = [f.step_grad(d_output, d_next, activated, cell, next_cell, bound) for f in (fused, PADDLE)]
    for mine, right in zip(*gradients):
        assert largest_difference(mine.numpy(), right.numpy()) < 1e-5 * max(1, scale**2)
    clipped = [f.clip_grad(d_output, d_next, cell, bound).numpy() for f in (fused, PADDLE)]
    assert np.array_equal(*clipped)
    if size > 1:
        assert 0 < (np.abs(cell.numpy()) >= bound).mean() < 1


def test_extreme_gates_saturate_and_nan_stays_visible(fused):
    gate = paddle.to_tensor([[1e30, 1e30, 1e30, 1e30], [-1e30, -1e30, -1e30, -1e30]])
    cell = paddle.to_tensor([[0.5], [0.5]])
    activated, next_cell, output = fused.step(gate, cell, 3.0)
    assert np.allclose(activated.numpy(), [[1, 1, 1, 1], [-1, 0, 0, 0]])
    assert np.allclose(next_cell.numpy(), [[1.5], [0]]) and np.isfinite(output.numpy()).all()
    for place in range(4):
        gate = np.zeros((1, 4), dtype="float32")
        gate[0, place] = np.nan
        _, _, output = fused.step(paddle.to_tensor(gate), paddle.to_tensor([[0.5]]), 3.0)
        assert np.isnan(output.numpy()).all()


PROGRAM = "import runtime, bilm, lstm_step, paddle; print(lstm_step.describe()); \
lm = bilm.BiLM(9, 4, 6); w = paddle.ones([2, 3], 'int64'); lm(w, w, w, w)[0].mean().backward(); print('trained')"


@pytest.mark.parametrize(
    "change, said",
    [
        ({"BILM_CPP": "0"}, "LSTM step in Paddle operators (BILM_CPP=0)"),
        ({"CXX": "no-such-compiler"}, "LSTM step in Paddle operators (no g++ found); slower, same results"),
        ({"CXX": "false"}, "LSTM step in Paddle operators (compiling lstm_step.cc failed: "),
    ],
)
def test_without_a_compiler_it_works_and_says_so(monkeypatch, tmp_path, change, said):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name, value in change.items():
        monkeypatch.setenv(name, value)
    finished = run_python("-c", PROGRAM)
    assert finished.returncode == 0 and said in finished.stdout and "trained" in finished.stdout, finished.stderr


def test_the_operator_is_compiled_once_and_kept(fused):
    folder = lstm_step._cache_folder("g++")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.so")}
    finished = run_python("-c", PROGRAM)
    assert "LSTM step in C++" in finished.stdout, finished.stderr
    assert before and before == {path: path.stat().st_mtime_ns for path in folder.rglob("*.so")}
    assert (ROOT / "lstm_step.cc").read_text(encoding="utf-8").count("PD_BUILD_OP") == 3


def test_golden_arrays_without_the_operator(monkeypatch):
    monkeypatch.setenv("BILM_CPP", "0")
    tests = ["tests/test_bilm.py", "tests/test_encoder.py", "tests/test_train.py", "-k", "golden or numpy or numeric"]
    finished = run_python("-m", "pytest", *tests)
    assert finished.returncode == 0 and " passed" in finished.stdout, finished.stdout
