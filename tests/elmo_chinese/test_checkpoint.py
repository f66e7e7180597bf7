"""elmo_chinese/checkpoint.py: whole or not at all, found again, and never executed."""

import json
import pickle
import subprocess
import sys

from elmo_chinese import checkpoint
from elmo_chinese.checkpoint import CheckpointError
from elmo_chinese.files import write_sums

import numpy as np
import paddle
import pytest
from conftest import ROOT


def save(root, step, **more):
    rng = np.random.default_rng(step)
    arrays = {"w": rng.normal(size=(3, 4)).astype("float32")}
    return checkpoint.save(root, {"step": step, "名": "值"}, arrays, arrays, arrays, "<S>\n", **more)


def steps(root):
    return sorted(int(path.name[5:]) for path in root.glob("step_*"))


def test_what_is_saved_is_loaded(tmp_path):
    path = save(tmp_path, 7)
    loaded = checkpoint.load(path)
    assert loaded.info == {"step": 7, "名": "值"} and path.name == "step_00000007"
    expected = np.random.default_rng(7).normal(size=(3, 4)).astype("float32")
    for part in (loaded.model, loaded.optimizer, loaded.state):
        assert np.array_equal(part["w"], expected)


def test_newest_and_best_stay(tmp_path):
    for step in (1, 2, 3, 4, 5):
        save(tmp_path, step, keep=2, best=step == 2)
    assert steps(tmp_path) == [2, 4, 5]
    assert (tmp_path / "latest").read_text() == "step_00000005\n"
    assert (tmp_path / "best").read_text() == "step_00000002\n"


def test_half_written_folders_are_ignored_and_cleaned_up(tmp_path):
    save(tmp_path, 1)
    (tmp_path / "step_00000002.tmp").mkdir()
    assert checkpoint.load_newest(tmp_path)[0].info["step"] == 1
    save(tmp_path, 3)
    assert sorted(path.name for path in tmp_path.glob("step_*")) == ["step_00000001", "step_00000003"]


def test_nothing_there_is_a_fresh_start(tmp_path):
    assert checkpoint.load_newest(tmp_path / "none") == (None, [])


@pytest.mark.parametrize("name", [*checkpoint.PAYLOAD, checkpoint.SUMS_FILE])
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
        checkpoint.read_arrays(path)
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize("protocol", [3, 4])
def test_arrays_of_every_form_are_read_like_pickle_does(tmp_path, protocol):
    rng, path = np.random.default_rng(0), tmp_path / "a.pdparams"
    arrays = {kind: rng.integers(0, 2, [3, 4]).astype(kind) for kind in "? i1 u1 i4 >i4 i8 f2 f4 >f4 f8".split()}
    arrays.update(fortran=np.asfortranarray(arrays["f4"]), number=np.array(3.0), none=np.zeros([0, 4], np.float32))
    path.write_bytes(pickle.dumps(arrays, protocol))
    for name, found in checkpoint.read_arrays(path).items():
        expected = arrays.pop(name)
        assert found.dtype == expected.dtype and found.shape == expected.shape and np.array_equal(found, expected)
    assert not arrays


@pytest.mark.parametrize(
    "content, message",
    [
        (pickle.dumps({"w": np.array([Evil()])}), "asks for"),
        (pickle.dumps({"w": np.array(["text"])}), "not of numbers"),
        (pickle.dumps({"w": [1, 2]}), "not arrays: w"),
        (pickle.dumps({1: np.zeros(2)}), "not arrays: 1"),
        (pickle.dumps([np.zeros(2)]), "expected named arrays, found list"),
        (pickle.dumps({"w": np.zeros((2, 8))}).replace(b"K\x02K\x08", b"K\xffK\xff"), "does not fit 128 bytes"),
        (b"\x80\x04\x8e" + (2**40).to_bytes(8, "little") + b".", "1099511627776 bytes are announced"),
    ],
)
def test_what_is_no_dictionary_of_arrays_is_refused(tmp_path, content, message):
    path = tmp_path / "a.pdparams"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        checkpoint.read_arrays(path)


def forged(folder, **info):
    """Change `checkpoint.json` and make the checksums fit."""
    (folder / checkpoint.INFO_FILE).write_text(json.dumps(info), encoding="utf-8")
    write_sums(folder, checkpoint.PAYLOAD)
    return checkpoint.load(folder)


@pytest.mark.parametrize(
    "info, message",
    [
        ({"progress": {"step": 3, "best": 1}}, "step is None"),
        ({"step": 3, "progress": 3}, "progress/step is None"),
        ({"step": True, "progress": {"step": 3}}, "step is True"),
        ({"step": -3, "progress": {"step": -3}}, "step is -3"),
        ({"step": 3, "progress": {"step": 3, "best": "1"}}, "progress/best is '1'"),
        ({"step": 3, "progress": {"step": 4, "best": 1}}, "two different steps"),
    ],
)
def test_what_a_checkpoint_says_of_itself_is_looked_at(tmp_path, info, message):
    kinds = {"step": int, "progress/step": int, "progress/best": (float, type(None))}
    folder = save(tmp_path, 3)
    checkpoint.check_info(forged(folder, step=3, progress={"step": 3, "best": None}), kinds)
    with pytest.raises(CheckpointError, match=f"checkpoint.json: {message}"):
        checkpoint.check_info(forged(folder, **info), kinds)


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
    saved = {key: value.numpy() for key, value in checkpoint.optimizer_arrays(first_optimizer, first).items()}
    assert any(key.startswith("weight/moment") for key in saved)
    second, second_optimizer = make()
    second.set_state_dict(first.state_dict())
    checkpoint.restore_optimizer(second_optimizer, second, saved, "here")
    step(first, first_optimizer)
    step(second, second_optimizer)
    assert np.array_equal(first.weight.numpy(), second.weight.numpy())
    for key in list(saved):
        for wrong in ({key: saved[key]}, {**saved, key: saved[key][:, None]}, {**saved, key + "x": saved[key]}):
            with pytest.raises(CheckpointError, match="here: does not belong together with the rest: "):
                checkpoint.restore_optimizer(second_optimizer, second, wrong, "here")


def test_a_second_run_in_the_same_folder_is_refused_until_the_first_is_gone(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "LOCK_TRIES", 1)
    program = "import pathlib, sys, time\nfrom elmo_chinese import checkpoint\n"
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
