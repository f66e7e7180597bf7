"""elmo_chinese/storage/pretrained.py: Fluid folders and our own checkpoints into a layer, and what is refused."""

import json
import shutil
import struct

from elmo_chinese.files import write_sums
from elmo_chinese.storage import checkpoint
from elmo_chinese.storage.pretrained import PretrainedError, read_fluid_variable

import numpy as np
import paddle
import pytest
from conftest import LM

from bilm import BiLM, init_pretraining_params, load_encoder


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(LM / "checkpoint", tmp_path / "fluid")


def small(**more):
    return BiLM(60, **{**dict(embed_size=8, hidden_size=16, dropout=0.0), **more})


def test_every_file_is_read_with_the_shape_and_type_the_original_wrote():
    for variable in json.loads((LM / "variables.json").read_text(encoding="utf-8")):
        array = read_fluid_variable(LM / "checkpoint" / variable["file"])
        assert list(array.shape) == variable["shape"] and array.dtype.name == variable["dtype"]
        assert np.array_equal(array, paddle.load(str(LM / "checkpoint" / variable["file"])).numpy())


@pytest.mark.usefixtures("shown")
def test_all_parameters_are_loaded_and_nothing_else(folder, capsys):
    lm = small()
    init_pretraining_params(None, folder, lm)
    for name, parameter in lm.fluid_parameters().items():
        assert np.array_equal(parameter.numpy(), read_fluid_variable(folder / name))
    printed = capsys.readouterr().out
    assert "loaded 19 parameters" in printed and "not needed: 23 others (" in printed
    assert printed.count("\n") == 1


def test_a_layer_around_the_model_is_filled_too(folder):
    outer = paddle.nn.Sequential(paddle.nn.Linear(2, 2), small())
    linear = outer[0].weight.numpy()
    init_pretraining_params(exe=None, pretraining_params_path=folder, main_program=outer)
    assert np.array_equal(outer[1].lstm.embedding.numpy(), read_fluid_variable(folder / "embedding_para"))
    assert np.array_equal(outer[0].weight.numpy(), linear)


@pytest.mark.usefixtures("shown")
def test_softmax_may_be_missing_and_keeps_its_values(folder, capsys):
    (folder / "softmax_weight").unlink()
    (folder / "softmax_bias").unlink()
    lm = small()
    before = lm.softmax_weight.numpy()
    init_pretraining_params(None, folder, lm)
    assert np.array_equal(lm.softmax_weight.numpy(), before)
    printed = capsys.readouterr().out
    assert "loaded 17 parameters" in printed and "at their starting values: softmax_weight, softmax_bias" in printed


def test_our_own_checkpoint_gives_the_same(folder, tmp_path, capsys):
    lm, other = small(), small()
    init_pretraining_params(None, folder, lm)
    arrays = {"hidden": np.zeros(1)}
    path = checkpoint.save(tmp_path / "run", {"step": 1}, lm.state_dict(), {}, arrays, "words\n")
    init_pretraining_params(None, path, other)
    for mine, theirs in zip(lm.parameters(), other.parameters()):
        assert np.array_equal(mine.numpy(), theirs.numpy())


def test_a_packed_folder_gives_the_same(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    archive = shutil.make_archive(str(tmp_path / "model"), "gztar", folder.parent, folder.name)
    lm = small()
    init_pretraining_params(None, archive, lm)
    assert np.array_equal(lm.lstm.embedding.numpy(), read_fluid_variable(folder / "embedding_para"))


@pytest.mark.parametrize(
    "sizes, message",
    [
        (dict(hidden_size=12), r"lstmp_0.w_0: expected shape \[8, 48\], found \[8, 64\]"),
        (dict(num_layers=3), "missing fw_layer3_gate_w"),
    ],
)
def test_other_sizes_are_named_and_nothing_is_changed(folder, sizes, message):
    lm = small(**sizes)
    before = [parameter.numpy() for parameter in lm.parameters()]
    with pytest.raises(PretrainedError, match=message):
        init_pretraining_params(None, folder, lm)
    assert all(np.array_equal(a, b.numpy()) for a, b in zip(before, lm.parameters()))


@pytest.mark.parametrize("content", [None, "{", "{}", '{"tags": []}'])
def test_a_checkpoint_without_readable_sizes_is_named(tmp_path, content):
    path = checkpoint.save(tmp_path, {"step": 1}, small().state_dict(), {}, {"hidden": np.zeros(1)}, "words\n")
    (path / checkpoint.INFO_FILE).unlink()
    if content is not None:
        (path / checkpoint.INFO_FILE).write_text(content, encoding="utf-8")
        write_sums(path, checkpoint.PAYLOAD)
    with pytest.raises(PretrainedError, match="checkpoint.json: (missing|not that of)|^\\S+ is a tagger, not a"):
        load_encoder(path)


def test_a_layer_with_two_models_is_an_error_and_neither_is_filled(folder):
    both = paddle.nn.LayerList([small(), small()])
    before = [parameter.numpy() for parameter in both.parameters()]
    with pytest.raises(PretrainedError, match="LayerList holds more than one biLM; fill each by itself"):
        init_pretraining_params(None, folder, both)
    assert all(np.array_equal(old, new.numpy()) for old, new in zip(before, both.parameters()))


def test_programs_and_static_mode_are_refused_with_the_lines_of_today(folder):
    lines = (
        r"(?s)leave out paddle.enable_static.*init_pretraining_params\(None, path, network\).*elmo_encoder\(word_ids"
    )
    with pytest.raises(PretrainedError, match=lines):
        init_pretraining_params(None, folder, paddle.static.default_main_program())
    paddle.enable_static()
    try:
        with pytest.raises(PretrainedError, match=lines):
            init_pretraining_params(None, folder)
    finally:
        paddle.disable_static()
    with pytest.raises(PretrainedError, match="a paddle.nn.Layer is filled from .*, got str"):
        init_pretraining_params(None, folder, "network")


def test_missing_folder_and_folder_without_anything_usable(tmp_path):
    with pytest.raises(PretrainedError, match="no such folder"):
        init_pretraining_params(None, tmp_path / "none", small())
    (tmp_path / "notes.txt").write_text("hello", encoding="utf-8")
    with pytest.raises(PretrainedError, match="nothing usable.*notes.txt"):
        init_pretraining_params(None, tmp_path, small())


def spoiled(content, kind):
    if kind == "truncated":
        return content[:-4]
    if kind == "too long":
        return content + b"\0"
    if kind == "header only":
        return content[:7]
    if kind == "text":
        return b"these are not the numbers"
    if kind == "huge LoD":
        return content[:4] + struct.pack("<Q", 2**63) + content[12:]
    if kind == "huge shape":  # 8 × 64 becomes an absurd size; nothing may be allocated for it
        return content.replace(b"\x10\x40", b"\x10\xff\xff\xff\xff\xff\xff\xff\x7f").replace(
            b"\x06\0\0\0", b"\x0e\0\0\0", 1
        )
    raise KeyError(kind)


@pytest.mark.parametrize("kind", ["truncated", "too long", "header only", "text", "huge LoD", "huge shape"])
def test_a_damaged_file_is_named(folder, kind):
    path = folder / "lstmp_1.w_0"
    path.write_bytes(spoiled(path.read_bytes(), kind))
    with pytest.raises(PretrainedError, match=r"lstmp_1\.w_0: "):
        init_pretraining_params(None, folder, small())
