"""A checkpoint goes on in another version of Paddle: OTHER_PADDLE=/path/to/its/python sh tests/run.sh"""

import os
import shutil
import subprocess
import sys

from elmo_chinese.storage import checkpoint
from elmo_chinese.training.metrics import read_metrics

import pytest
from conftest import LM, ROOT

OTHER = os.environ.get("OTHER_PADDLE", "")
SMALL = [
    *("--train_path", str(LM / "train.txt"), "--test_path", str(LM / "dev.txt"), "--vocab_path", str(LM / "vocab.txt")),
    *("--embed_size", "8", "--hidden_size", "12", "--num_steps", "5", "--batch_size", "8", "--shuffle", "true"),
    *("--log_interval", "1", "--dev_interval", "4", "--save_interval", "4", "--keep", "9", "--max_epoch", "1"),
]
OPTIMIZERS = {
    "adagrad": ["--sample_softmax", "true", "--n_negative_samples_batch", "20"],
    "adam": ["--optim", "adam", "--learning_rate", "0.001"],
}


def train(python, root, *flags):
    """Train in a process of its own; return the version of Paddle and the figures without what the clock says."""
    command = [python, "train.py", *SMALL, *flags, "--para_save_dir", str(root), "--load_dir", "auto"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    records = read_metrics(root / "log" / "metrics.jsonl")
    found, _ = checkpoint.load_newest(root)
    figures = [{k: v for k, v in record.items() if k not in ("time", "tokens_per_second")} for record in records]
    return found.info["versions"]["paddle"], figures


@pytest.mark.skipif(not OTHER, reason="OTHER_PADDLE does not name the Python of an environment with another Paddle")
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("here, there", [(sys.executable, OTHER), (OTHER, sys.executable)], ids=["to", "from"])
def test_a_run_goes_on_in_the_other_version(tmp_path, here, there, optimizer):
    flags = [*OPTIMIZERS[optimizer], "--cache_dir", str(tmp_path / "cache")]
    version, whole = train(here, tmp_path / "whole", *flags)
    shutil.copytree(tmp_path / "whole", tmp_path / "moved")
    checkpoint.write_text(tmp_path / "moved" / "latest", "step_00000004\n")
    other, moved = train(there, tmp_path / "moved", *flags)
    assert version != other and len(whole) == len(moved) > 8
    for a, b in zip(whole, moved):
        assert a.pop("kind") == b.pop("kind") and b == pytest.approx(a, rel=1e-5)
