"""elmo_chinese/storage/checkpoint.py: whole or not at all, found again, and never executed."""

import json
import pickle
import random
import shutil
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Optional

from elmo_chinese import files
from elmo_chinese.files import write_sums
from elmo_chinese.storage import checkpoint, contents
from elmo_chinese.storage.checkpoint import CheckpointError, Score

import numpy as np
import paddle
import pytest
from conftest import ROOT


def save(root, step, **more):
    rng = np.random.default_rng(step)
    arrays = {"w": rng.normal(size=(3, 4)).astype("float32")}
    claim(root)
    return checkpoint.save(root, {"step": step, "名": "值"}, arrays, arrays, arrays, "<S>\n", **more)


def claim(root):
    """Begin a run, unless one began there."""
    return checkpoint.run_of(root) or checkpoint.claim(root, None)


def names(root):
    return sorted(path.name for path in root.glob("step_*"))


def steps(root):
    return sorted({int(name[5:13]) for name in names(root)})


def test_what_is_saved_is_loaded(tmp_path):
    path = save(tmp_path, 7)
    loaded = checkpoint.load(path)
    run = checkpoint.run_of(tmp_path)
    assert loaded.info == {"step": 7, "名": "值", "run": run, "score": None} and path.name == "step_00000007"
    expected = np.random.default_rng(7).normal(size=(3, 4)).astype("float32")
    for part in (loaded.model, loaded.optimizer, loaded.state):
        assert np.array_equal(part["w"], expected)


def scored(root, step, value, text="dev", **more):
    """Save a checkpoint that tells its score."""
    arrays = {"w": np.full(3, value, np.float32)}
    claim(root)
    return checkpoint.save(root, {"step": step}, arrays, {}, {}, "<S>\n", score=Score(value, text), **more)


def best_value(root):
    """Return what stands in the parameters of the best checkpoint, None if there is none."""
    folder = checkpoint.best_of(root)
    return folder and float(checkpoint.load(folder).model["w"][0])


def test_newest_and_best_stay(tmp_path):
    for step in (1, 2, 3, 4, 5):
        scored(tmp_path, step, float(step == 2), keep=2)
    assert steps(tmp_path) == [2, 4, 5]
    assert (tmp_path / "latest").read_text() == "step_00000005\n"
    assert (tmp_path / "best").read_text() == "step_00000002\n" and best_value(tmp_path) == 1
    assert checkpoint.resolve(tmp_path) == tmp_path / "step_00000002" == checkpoint.resolve(tmp_path / "step_00000002")


def test_the_best_is_the_best_that_is_there_whatever_becomes_of_its_step(tmp_path):
    for step, value in ((20, -51.7), (30, -50.1), (31, -49.9)):
        scored(tmp_path, step, value, keep=9)
    for step, value in ((30, -2e38), (31, -2e38)):  # gone back to 20
        scored(tmp_path, step, value, keep=1)
    assert best_value(tmp_path) == np.float32(-49.9)
    assert names(tmp_path) == ["step_00000031", "step_00000031_2"]
    scored(tmp_path, 32, float("nan"))
    scored(tmp_path, 33, -49.9)
    save(tmp_path, 34)
    assert best_value(tmp_path) == np.float32(-49.9) and checkpoint.best_of(tmp_path).name == "step_00000031"
    scored(tmp_path, 35, -3.0, "another text")
    assert best_value(tmp_path) == -3
    scored(tmp_path, 36, -4.0, "another text", keep=1)
    scored(tmp_path, 37, -50.0, keep=1)
    assert best_value(tmp_path) == np.float32(-49.9)  # the best on each text stays
    assert names(tmp_path) == ["step_00000031", "step_00000035", "step_00000037"]


def test_a_damaged_best_that_is_written_again_is_the_best_no_more(tmp_path):
    scored(tmp_path, 1, 1.0)
    path = scored(tmp_path, 2, 2.0) / checkpoint.MODEL_FILE
    path.write_bytes(path.read_bytes()[:-1])
    scored(tmp_path, 2, 2.0)  # gone back to 1
    assert checkpoint.best_of(tmp_path).name == "step_00000002_2" and best_value(tmp_path) == 2
    assert names(tmp_path) == ["step_00000001", "step_00000002_2"]


def test_a_run_without_scores_stands_for_its_newest(tmp_path):
    save(tmp_path, 1)
    save(tmp_path, 2)
    assert checkpoint.best_of(tmp_path) is None and checkpoint.resolve(tmp_path).name == "step_00000002"
    assert checkpoint.resolve(tmp_path / "none") == tmp_path / "none"


@pytest.mark.parametrize("content", [b"", b"step_", b"\xff", None])
def test_a_damaged_pointer_to_the_best_is_made_good(tmp_path, content):
    scored(tmp_path, 1, 5.0, keep=1)
    (tmp_path / "best").unlink() if content is None else (tmp_path / "best").write_bytes(content)
    assert best_value(tmp_path) == 5
    scored(tmp_path, 2, 4.0, keep=1)
    assert best_value(tmp_path) == 5
    shutil.rmtree(checkpoint.best_of(tmp_path))
    assert checkpoint.resolve(tmp_path).name == "step_00000002"
    scored(tmp_path, 3, 3.0, keep=2)
    assert best_value(tmp_path) == 4  # the best of those that are still there


@pytest.mark.parametrize("seed", range(8))
def test_random_branches_of_a_run(tmp_path, seed):
    """After any sequence of steps, of going back, of other texts and of losses, the best is the best that is there."""
    draw, step, text, keep, expected = random.Random(seed), 0, "a", 1 + seed % 3, None
    scores = {}  # of each step's folder
    for _ in range(25):
        step += 1
        there = {folder: score for folder, score in scores.items() if folder.exists()}
        value = draw.choice([draw.uniform(-100, 0), draw.uniform(-100, 0), -2e38, None])
        value = draw.choice([draw.uniform(-100, 0), draw.uniform(-100, 0), -2e38, None])
        if value is None:
            scores[save(tmp_path, step, keep=keep)] = None
        else:
            folder = scored(tmp_path, step, value, text, keep=keep)
            there[folder] = scores[folder] = np.float32(value), text
            expected = max(score for score in [expected, *there.values()] if score and score[1] == text)
        assert best_value(tmp_path) == (expected and expected[0])
        if draw.random() < 0.2:  # go back to a step that is there
            step = draw.choice(steps(tmp_path))
        if draw.random() < 0.1:
            text = draw.choice("ab")


def test_no_run_begins_without_room_for_one_checkpoint(tmp_path, monkeypatch):
    network = paddle.nn.Linear(250, 999)  # 1 MB with its bias; 2 MB with Adagrad's sums, 3 MB with Adam's
    for name, megabytes in (("SGD", 1), ("Adagrad", 2), ("Adam", 3)):
        optimizer = getattr(paddle.optimizer, name)(0.1, parameters=network.parameters())
        for free, fails in ((megabytes * 10**6, True), (megabytes * 10**6 + 10**5, False)):
            monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda _, free=free: SimpleNamespace(free=free))
            with pytest.raises(CheckpointError, match="make room, or choose") if fails else nullcontext():
                checkpoint.check_room(tmp_path, network, optimizer)


def test_half_written_folders_are_ignored_and_cleaned_up_where_the_run_is_at_home(tmp_path):
    save(tmp_path, 1)
    for name in ("step_00000002.0123abcd.tmp", "step_00000002.tmp", "step_notes.0123abcd.tmp"):
        (tmp_path / name).mkdir()
    found = checkpoint.load_newest(tmp_path)[0]
    assert found.info["step"] == 1
    checkpoint.claim(tmp_path, found)
    assert names(tmp_path) == ["step_00000001", "step_00000002.tmp", "step_notes.0123abcd.tmp"]


def test_nothing_there_is_a_fresh_start(tmp_path):
    assert checkpoint.load_newest(tmp_path / "none") == (None, [])


@pytest.mark.parametrize("name", [*checkpoint.PAYLOAD, files.SUMS_FILE])
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_a_damaged_newest_is_named_and_the_one_before_is_used(tmp_path, name, damage):
    save(tmp_path, 1)
    path = save(tmp_path, 2) / name
    content = path.read_bytes()
    if damage == "remove":
        path.unlink()
    elif damage == "truncate":
        path.write_bytes(content[: len(content) // 2])
    else:
        place = len(content) // 2
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    found, damages = checkpoint.load_newest(tmp_path)
    assert found.info["step"] == 1 and len(damages) == 1 and "step_00000002" in damages[0]
    with pytest.raises(CheckpointError, match="step_00000002"):
        checkpoint.load(path.parent)


def test_all_damaged_is_an_error_not_a_fresh_start(tmp_path):
    (save(tmp_path, 1) / checkpoint.MODEL_FILE).write_bytes(b"")
    with pytest.raises(CheckpointError, match="no checkpoint in .* can be read"):
        checkpoint.load_newest(tmp_path)


def test_a_run_taken_back_goes_on_from_its_own_latest(tmp_path):
    for step in (1, 2, 3):
        save(tmp_path, step)
    checkpoint.write_text(tmp_path / "latest", "step_00000001\n")  # gone on from 1, with 2 and 3 still there
    assert checkpoint.load_newest(tmp_path)[0].info["step"] == 1
    save(tmp_path, 2, keep=1)
    assert checkpoint.load_newest(tmp_path)[0].info["step"] == 2 and steps(tmp_path) == [2, 3]


@pytest.mark.parametrize("moment", ["model", "state", "rename"])
def test_a_failure_while_saving_leaves_the_older_ones_and_nothing_half(tmp_path, monkeypatch, moment):
    save(tmp_path, 1)

    def full(*arguments, **more):
        raise OSError(28, "No space left on device")

    target = {"model": (paddle, "save"), "state": (np, "savez"), "rename": (checkpoint.os, "replace")}[moment]
    monkeypatch.setattr(*target, full)
    with pytest.raises(CheckpointError, match="step 2 .*No space left on device.*older ones are intact"):
        save(tmp_path, 2)
    monkeypatch.undo()
    assert steps(tmp_path) == [1] and checkpoint.load_newest(tmp_path)[0].info["step"] == 1


class Evil:
    def __reduce__(self):
        return print, ("executed",)


def test_code_in_a_parameter_file_is_refused_not_run(tmp_path, capsys):
    path = tmp_path / "evil.pdparams"
    path.write_bytes(pickle.dumps({"w": Evil()}))
    with pytest.raises(CheckpointError, match="builtins.print"):
        contents.read_arrays(path)
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize("protocol", [3, 4])
def test_arrays_of_every_form_are_read_like_pickle_does(tmp_path, protocol):
    rng, path = np.random.default_rng(0), tmp_path / "a.pdparams"
    arrays = {kind: rng.integers(0, 2, [3, 4]).astype(kind) for kind in "? i1 u1 i4 >i4 i8 f2 f4 >f4 f8".split()}
    arrays.update(fortran=np.asfortranarray(arrays["f4"]), number=np.array(3.0), none=np.zeros([0, 4], np.float32))
    path.write_bytes(pickle.dumps(arrays, protocol))
    for name, found in contents.read_arrays(path).items():
        expected = arrays.pop(name)
        assert (
            found.dtype == expected.dtype.newbyteorder("=")
            and found.shape == expected.shape
            and np.array_equal(found, expected)
        )
    assert not arrays


@pytest.mark.parametrize(
    "content, message",
    [
        (pickle.dumps({"w": np.array([Evil()])}), "asks for"),
        (pickle.dumps({"w": np.array(["text"])}), "not arrays of numbers: w"),
        (pickle.dumps({"w": [1, 2]}), "not arrays of numbers: w"),
        (pickle.dumps({1: np.zeros(2)}), "not arrays of numbers: 1"),
        (pickle.dumps([np.zeros(2)]), "expected named arrays, found list"),
        (pickle.dumps({"w": np.zeros((2, 8))}).replace(b"K\x02K\x08", b"K\xffK\xff"), "not a readable Paddle"),
        (b"\x80\x04\x8e" + (2**40).to_bytes(8, "little") + b".", "not a readable Paddle parameter file"),
    ],
)
def test_what_is_no_dictionary_of_arrays_is_refused(tmp_path, content, message):
    path = tmp_path / "a.pdparams"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        contents.read_arrays(path)


def forged(folder, **info):
    """Change `checkpoint.json` and make the checksums fit."""
    (folder / checkpoint.INFO_FILE).write_text(json.dumps(info), encoding="utf-8")
    write_sums(folder, checkpoint.PAYLOAD)
    return checkpoint.load(folder)


@pytest.mark.parametrize(
    "info, message",
    [
        ({"progress": {"step": 3, "best": 1}}, "step is None"),
        ({"step": 3, "progress": 3}, "progress is 3"),
        ({"step": 3, "progress": {"best": 1}}, "step is None"),
        ({"step": True, "progress": {"step": 3}}, "step is True"),
        ({"step": -3, "progress": {"step": -3}}, "step is -3"),
        ({"step": 3, "progress": {"step": 3, "best": "1"}}, "best is '1'"),
        ({"step": 3, "progress": {"step": 3, "best": float("nan")}}, "best is nan"),
        ({"step": 3, "progress": {"step": 4, "best": 1}}, "two different steps"),
    ],
)
def test_what_a_checkpoint_says_of_itself_is_looked_at(tmp_path, info, message):
    def look(found):
        contents.check_info(found, {"step": int})
        return contents.progress_of(found, Progress)

    folder = save(tmp_path, 3)
    assert look(forged(folder, step=3, progress={"step": 3, "best": None, "more": 1})) == Progress(3, None)
    assert look(forged(folder, step=3, progress={"step": 3, "best": 2})) == Progress(3, 2.0)
    with pytest.raises(CheckpointError, match=f"checkpoint.json: {message}"):
        look(forged(folder, **info))


@dataclass
class Progress:
    step: int
    best: Optional[float]


def test_a_compressed_or_wrong_state_is_refused(tmp_path):
    folder = save(tmp_path, 1)
    for write in (np.savez_compressed, lambda path, **arrays: np.savez(path, w=np.array([Evil()]))):
        write(folder / checkpoint.STATE_FILE, w=np.zeros(2**20))
        write_sums(folder, checkpoint.PAYLOAD)
        with pytest.raises(CheckpointError, match="state.npz: cannot be read"):
            checkpoint.load(folder)


@pytest.mark.parametrize("name", ["Adagrad", "Adam"])
def test_optimizer_state_moves_to_a_model_made_later(name):
    def make():
        paddle.seed(0)
        layer = paddle.nn.Linear(2, 3)
        return layer, getattr(paddle.optimizer, name)(learning_rate=0.1, parameters=layer.parameters())

    def step(layer, optimizer):
        (layer(paddle.to_tensor([[1.0, -2.0]])) ** 2).sum().backward()
        optimizer.step()
        optimizer.clear_grad()

    first, first_optimizer = make()
    step(first, first_optimizer)
    saved = {key: value.numpy() for key, value in contents.optimizer_arrays(first_optimizer, first).items()}
    assert any(key.startswith("weight/moment") for key in saved)
    second, second_optimizer = make()
    second.set_state_dict(first.state_dict())
    contents.restore_optimizer(second_optimizer, second, saved, "here")
    step(first, first_optimizer)
    step(second, second_optimizer)
    assert np.array_equal(first.weight.numpy(), second.weight.numpy())
    for key in list(saved):
        for wrong in ({key: saved[key]}, {**saved, key: saved[key][:, None]}, {**saved, key + "x": saved[key]}):
            with pytest.raises(CheckpointError, match="here: does not belong together with the rest: "):
                contents.restore_optimizer(second_optimizer, second, wrong, "here")


def test_a_second_run_in_the_same_folder_is_refused_until_the_first_is_gone(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LOCK_TRIES", 1)
    program = "import pathlib, sys, time\nfrom elmo_chinese.storage import checkpoint\n"
    program += "with checkpoint.only_run(pathlib.Path(sys.argv[1]), '--flag'): print('in', flush=True); time.sleep(60)"
    command = [sys.executable, "-c", program, str(tmp_path / "run")]
    first = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, universal_newlines=True)
    try:
        assert first.stdout.readline() == "in\n"
        with pytest.raises(CheckpointError, match="another run is at work in .*run .*choose another --flag"):
            with checkpoint.only_run(tmp_path / "run", "--flag"):
                pass
        with checkpoint.only_run(tmp_path / "other", "--flag"):
            pass
    finally:
        first.kill()
        first.communicate()
    for _ in range(2):
        with checkpoint.only_run(tmp_path / "run", "--flag"):
            assert not any((tmp_path / "run").iterdir())
