"""What the tests share."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from elmo_chinese import console

import numpy as np
import paddle
import pytest

from bilm import BiLM, init_pretraining_params

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden"
LM = GOLDEN / "lm_small"
# What the project consists of, where there is no git to ask; a clone that is used holds much else.
PARTS = (
    *(".ci .gitignore CONTRIBUTING.md LICENSE MANIFEST.in README.md README_cn.md pyproject.toml setup.py".split()),
    *("requirements.txt requirements-cpu.txt requirements-dev.txt run.sh setup.sh scripts".split()),
    *("bilm.py reader.py train.py preprocess.py elmo_embed.py elmo_publish.py embed.py elmo_chinese lac mrc".split()),
    *("benchmarks docs examples tests data/README.md data/dev data/text data/train data/vocabulary.txt".split()),
    *("data/segmenter.json data/vocabulary.segmenter.json".split()),
)


def project_files():
    """Return the files of the project, relative to ROOT: what git tracks, or else all in PARTS."""
    if (ROOT / ".git").exists() and shutil.which("git"):
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
        names = [Path(os.fsdecode(name)) for name in listed.stdout.split(b"\0")[:-1]]
        return [name for name in names if (ROOT / name).is_file()]
    return sorted(files_of_the_parts())


def files_of_the_parts():
    for part in PARTS:
        for path in [ROOT / part, *(ROOT / part).rglob("*")]:
            name = path.relative_to(ROOT)
            hidden = any(place.startswith((".", "__pycache__")) for place in name.parts[1:])
            if path.is_file() and not hidden:
                yield name


def copy_project(folder):
    """Copy the files of the project into a folder."""
    for name in project_files():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)


def run_python(*arguments, **more):
    """Run a script of the project in a process of its own; return the finished process."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, encoding="utf-8", **more
    )


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """The wheel, made from a copy of the project, without asking an index."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    copy_project(source)
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
def shown():
    """What is logged is printed, as in a command."""
    with console.shown():
        yield


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
