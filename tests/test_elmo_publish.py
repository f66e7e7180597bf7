"""elmo_publish.py: what a colleague gets is the biLM and its vocabulary, and nothing else."""

import json
import tarfile

from elmo_chinese.storage import checkpoint
from elmo_chinese.storage.fluid import read_fluid_variable

import numpy as np
import paddle
import pytest
from conftest import LM

import elmo_publish
from bilm import BiLM, ElmoEncoder, load_encoder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    lm = BiLM(60, 8, 16)
    info = {"step": 7, "model": lm.lstm.config, "dev": {"perplexity": 41.5}, "rows": 4}
    info["segmenter"] = {"kind": "jieba", "dictionary": "", "width": "none"}
    optimizer = {f"m{n}": np.ones([60, 8], "float32") for n in range(8)}
    text = (LM / "vocab.txt").read_text(encoding="utf-8")
    return checkpoint.save(tmp_path_factory.mktemp("run"), info, lm.state_dict(), optimizer, {"x": np.zeros(9)}, text)


def publish(run, output, *flags):
    elmo_publish.main([str(run), str(output), *flags])
    return output


def test_it_gives_the_vectors_of_the_run_and_tells_of_it(run, tmp_path, capsys):
    path = publish(run, tmp_path / "model.tar.gz", "--text", "新闻", "--licence", "CC0")
    assert "): 60 words, 2 layers, embed 8, hidden 16\n" in capsys.readouterr().out
    published, vocabulary = load_encoder(path)
    of_run, words = load_encoder(run)
    assert (published([[5, 8, 13]]) == of_run([[5, 8, 13]])).all()
    assert vocabulary.words == words.words and vocabulary.note == words.note and vocabulary.note["kind"] == "jieba"
    with tarfile.open(path) as archive:
        names = archive.getnames()
        info = json.load(archive.extractfile("checkpoint.json"))
    summed = ["SHA256SUMS", "checkpoint.json", "model.pdparams", "vocabulary.segmenter.json", "vocabulary.txt"]
    assert names == summed
    assert info["card"] == {"text": "新闻", "licence": "CC0", "step": 7, "dev perplexity": 41.5}


def test_two_from_one_run_are_equal_byte_for_byte(run, tmp_path):
    for style in ("elmo", "fluid"):
        one, two = (publish(run, tmp_path / f"{style}_{n}.tar.gz", "--format", style).read_bytes() for n in "12")
        assert one == two


def test_the_originals_format(run, tmp_path):
    path = publish(run, tmp_path / "model.tgz", "--format", "fluid")
    with tarfile.open(path) as archive:
        archive.extractall(tmp_path / "out")
    lm = load_encoder(run)[0].lstm.fluid_parameters()
    for name, parameter in lm.items():
        assert np.array_equal(read_fluid_variable(tmp_path / "out" / name), parameter.numpy())
        assert np.array_equal(paddle.load(str(tmp_path / "out" / name)).numpy(), parameter.numpy())
    encoder = ElmoEncoder.from_pretrained(path)
    assert encoder.vocabulary.words == load_encoder(run)[1].words  # it lies beside the variables
    assert (encoder([[5, 8]]) == load_encoder(run)[0]([[5, 8]])).all()


@pytest.mark.parametrize(
    "output, message", [("model.zip", "must end in .tar.gz"), ("there.tar.gz", "is there already; choose another name")]
)
def test_nothing_is_replaced(run, tmp_path, capsys, output, message):
    (tmp_path / "there.tar.gz").write_text("mine", encoding="utf-8")
    with pytest.raises(SystemExit) as stopped:
        publish(run, tmp_path / output)
    assert stopped.value.code == 1 and message in capsys.readouterr().err
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]
