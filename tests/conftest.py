"""What the tests share."""

import shutil
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


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """The wheel, made from a copy of what git tracks, without asking an index."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    for name in listed.stdout.split("\n")[:-1]:
        if not name.startswith(("tests", "docs", "benchmarks", "data")) and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source)
    (made,) = folder.glob("elmo_chinese-*.whl")
    return made


def pip(command, *arguments):
    arguments = [command, "--quiet", "--no-index", "--disable-pip-version-check", *map(str, arguments)]
    done = subprocess.run([sys.executable, "-m", "pip", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="session")
def installed(wheel, tmp_path_factory):
    """A folder with the installed package alone."""
    folder = tmp_path_factory.mktemp("site")
    pip("install", "--no-deps", "--target", folder, wheel)
    return folder


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
