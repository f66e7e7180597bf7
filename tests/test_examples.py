"""examples/: the whole way of a user's own task, from two columns of text to a program that is served."""

import os
import subprocess
import sys

import pytest
from conftest import GOLDEN, LM, ROOT

from bilm import ElmoEncoder


def run(*command, **more):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, *map(str, command)]
    done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", **more)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("elmo", ["true", "false"])
def test_reviews_are_learnt_saved_and_served(tmp_path, elmo):
    words = (LM / "vocab.txt").read_text(encoding="utf-8").split()[3:]
    good, bad = "".join(words[:2]), "".join(words[20:22])
    (tmp_path / "reviews.tsv").write_text(f"good\t{good}\nbad\t{bad}\n" * 32, encoding="utf-8")
    model = tmp_path / "model"
    checkpoint = GOLDEN / "lac_small" / "elmo_checkpoint"
    ElmoEncoder.from_pretrained(checkpoint, LM / "vocab.txt").save_pretrained(model)
    files = ("--train", tmp_path / "reviews.tsv", "--test", tmp_path / "reviews.tsv")
    flags = ("--model", model, "--save", tmp_path / "saved", "--epochs", 15, "--elmo", elmo)
    assert "accuracy 100.00 % of 64 texts" in run(ROOT / "examples" / "sentiment.py", *files, *flags)
    answers = run(ROOT / "examples" / "serve.py", tmp_path / "saved", input=f"{bad}\n{good}\n", cwd=tmp_path)
    assert [line.split("\t")[::2] for line in answers.splitlines()[-2:]] == [["bad", bad], ["good", good]]
