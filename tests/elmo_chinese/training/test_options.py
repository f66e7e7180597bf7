"""elmo_chinese/training/options.py: which biLM a path stands for."""

import shutil

from elmo_chinese.storage import checkpoint
from elmo_chinese.storage.checkpoint import Score
from elmo_chinese.training.options import bilm_path

import pytest


def test_the_folder_of_a_run_stands_for_its_best_also_where_only_that_is_left(tmp_path, monkeypatch):
    _, worse = (
        checkpoint.save(tmp_path / "run", {"step": step, "rows": 1}, {}, {}, {}, "", score=Score(score, "x"))
        for step, score in ((1, 1.0), (2, 0.5))
    )
    best = str(checkpoint.best_of(tmp_path / "run"))
    assert bilm_path(str(tmp_path / "run")) == best
    monkeypatch.chdir(tmp_path / "run")
    assert bilm_path("") == ""
    shutil.rmtree(worse)
    assert bilm_path(str(tmp_path / "run")) == best != str(worse) and bilm_path("") == ""


@pytest.mark.parametrize("path", ["nowhere", "https://host/a.tar.gz", "./a//b"])
def test_any_other_path_stays_as_it_is(path):
    assert bilm_path(path) == path
