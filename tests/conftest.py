"""What the tests share."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest

from bilm import BiLM, init_pretraining_params

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden"
LM = GOLDEN / "lm_small"


def run_python(*arguments, **more):
    """Run a script of the project in a process of its own; return the finished process."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, encoding="utf-8", **more
    )


@pytest.fixture
def golden_lm():
    """The small language model of the golden data, with its parameters and without dropout."""
    lm = BiLM(60, embed_size=8, hidden_size=16, num_layers=2, dropout=0.0)
    init_pretraining_params(None, LM / "checkpoint", lm)
    return lm


def tensors(arrays, *names):
    """Return named arrays as tensors."""
    return [paddle.to_tensor(arrays[name]) for name in names]


def largest_difference(a, b):
    """Return the largest absolute difference of two arrays of one shape."""
    a, b = np.asarray(a), np.asarray(b)
    assert a.shape == b.shape
    return np.abs(a - b).max()
