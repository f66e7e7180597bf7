"""lac.export: the static program tags as the network it comes from."""

import re
import shutil

from elmo_chinese.text.segmenter import PathSegmenter
from elmo_chinese.text.vocabulary import Vocabulary

import numpy as np
import paddle
import pytest
from conftest import LM, ROOT

from bilm import ElmoEncoder
from lac import export, predict
from lac import model as tagging
from lac.dictionaries import Dictionaries, read_table, read_tags
from lac.model import Model, encode, predict_ids, tag_tokens
from lac.network import Tagger

TAGS = ROOT / "tests" / "golden" / "lac_small" / "tag.dic"


def random_model(**elmo):
    """Return a tagger with large random weights, so that its tags vary; `elmo`: options of an encoder, if any."""
    paddle.seed(3)
    vocabulary, tags = Vocabulary(LM / "vocab.txt"), read_tags(TAGS)
    encoder = ElmoEncoder(vocabulary.size, embed_size=4, hidden_size=6, proj_clip=0.5, **elmo) if elmo else None
    tagger = Tagger(vocabulary.size, len(tags), 5, 4, 1 if elmo else 2, encoder=encoder)
    for name, parameter in tagger.named_parameters():
        if "mixes" not in name:
            parameter.set_value(paddle.randn(parameter.shape))
    tagger.eval()
    table = read_table(ROOT / "lac" / "conf" / "q2b.dic")
    segmenter = PathSegmenter({word: 3 for word in vocabulary.words}, "count")
    text = Dictionaries(vocabulary.words, tags, table, segmenter, weight=2)
    return Model(tagging.decoder(tagger), text, vocabulary if elmo else None, tagger)


def predict_tags(model, sentences):
    """Return a tag for each token of each sentence."""
    return [[model.text.tags[n] for n in path] for path in predict_ids(model, encode(model, sentences))]


ENCODERS = {
    "no ELMo": {},
    "three layers": dict(num_layers=3),
    "boundaries": dict(boundaries=True, start=0, end=1),
    "legacy": dict(legacy=True),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_the_exported_program_gives_the_same_tags(tmp_path, name):
    model = random_model(**ENCODERS[name])
    export.save(model, tmp_path / "out")
    exported = tagging.load(tmp_path / "out")
    random = np.random.default_rng(1)
    sentences = [[model.text.words[n] for n in random.integers(3, 60, size)] for size in (7, 1, 4, 12, 33)]
    expected = predict_tags(model, sentences)
    assert predict_tags(exported, sentences) == expected
    assert [predict_tags(exported, [sentence])[0] for sentence in sentences] == expected
    assert len({tag for tags in expected for tag in tags}) > 2
    for name in ("words", "tags", "table"):
        assert getattr(exported.text, name) == getattr(model.text, name)
    assert exported.text.info() == model.text.info() and exported.text.segmenter.counts == model.text.segmenter.counts


def test_predict_runs_from_an_exported_folder(tmp_path, capsysbinary):
    model, lines = random_model(), ["上海的 房价", "", "１，2"]
    export.save(model, tmp_path / "out")
    (tmp_path / "text.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    predict.main(["--model", str(tmp_path / "out"), str(tmp_path / "text.txt")])
    printed = capsysbinary.readouterr().out.decode("utf-8")
    expected = [
        " ".join(f"{line[span.start : span.end]}/{span.label}" for span in tagged.spans() if span.label)
        for line, tagged in zip(lines, tag_tokens(model, lines))
    ]
    assert printed == "".join(line + "\n" for line in expected)


def test_what_cannot_be_exported_or_loaded_is_named(tmp_path, capsys, recwarn):
    folder = tmp_path / "out"
    export.save(random_model(), folder)
    assert [str(one.message) for one in recwarn if "force_cpu" in str(one.message)] == []

    def message(program, *arguments):
        with pytest.raises(SystemExit) as stopped:
            program.main([*map(str, arguments)])
        assert stopped.value.code == 1
        return capsys.readouterr().err

    assert "exported already" in message(export, "--model", folder, "--output", tmp_path / "more")
    assert "nowhere: no such checkpoint folder" in message(export, "--model", "nowhere", "--output", folder)
    with pytest.raises(ValueError, match="is there already; choose another --output"):
        export.save(random_model(), folder)
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "tag.dic").write_text("n\n", encoding="utf-8")
    assert re.search("tag.dic: damaged", message(predict, "--model", copy))
    (copy / "tag.dic").unlink()
    assert re.search("tag.dic: missing", message(predict, "--model", copy))
    other = next(name for name in tagging.PROGRAM_FILES if name != tagging.PROGRAM_FILE)
    (copy / tagging.PROGRAM_FILE).rename(copy / other)
    assert "was exported with another Paddle; for this one" in message(predict, "--model", copy)


def test_of_two_at_once_the_second_replaces_nothing(tmp_path, monkeypatch):
    def quicker(_, beside):
        (tmp_path / "out").mkdir()
        beside.mkdir()

    monkeypatch.setattr(export, "_write", quicker)
    (tmp_path / "out.lock").write_bytes(b"mine")
    with pytest.raises(OSError, match="a folder of this name is there"):
        export.save(random_model(), tmp_path / "out")
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["out", "out.lock"]
