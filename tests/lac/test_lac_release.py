"""lac/release/ and what it takes to run, train on and export Baidu's released models against the official answers.

The models are in the source package `LAC` 2.1.2, which pip gets; without it the tests that need them are skipped.
"""

import json
import random
import shutil
import subprocess
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from elmo_chinese.command import OptionError
from elmo_chinese.network import kernels
from elmo_chinese.storage.pretrained import PretrainedError
from elmo_chinese.text.reading import InputError

import numpy as np
import paddle
import pytest
from conftest import ROOT, largest_difference, run_python

from bilm import ElmoEncoder
from lac import LAC, export, predict, release, train
from lac.lines import Line, Span, parse_line, spans
from lac.model import Tagged
from lac.release.interface import Items, apply_items

GOLDEN = ROOT / "tests" / "golden" / "lac_release"


def golden(name):
    return json.loads((GOLDEN / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def models():
    try:
        return release.fetch()
    except InputError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def lac(models):
    return {mode: LAC(str(models), mode) for mode in release.MODES}


OFFICIAL = golden("official.json")
EXPECTED = {
    "lac": [[one["words"], one["tags"]] for one in OFFICIAL],
    "seg": [one["seg"] for one in OFFICIAL],
    "rank": [[one["words"], one["tags"], one["rank"]] for one in OFFICIAL],
}


@pytest.mark.parametrize("mode", release.MODES)
def test_answers_are_the_official_ones_alone_and_together(lac, mode):
    texts = [one["text"] for one in OFFICIAL]
    copy = list(texts)
    assert lac[mode].run(texts) == EXPECTED[mode] and texts == copy and len(texts) == 53
    assert [lac[mode].run(text) for text in texts] == EXPECTED[mode]


def test_customized_answers_are_the_official_ones(models):
    lac = LAC(str(models))
    lac.load_customization(str(GOLDEN / "custom.txt"))
    expected = golden("customized.json")
    assert lac.run([one["text"] for one in expected]) == [[one["words"], one["tags"]] for one in expected]
    assert lac.run([one["text"] for one in OFFICIAL]) != EXPECTED["lac"]


def test_a_word_can_be_added_and_cut(models):
    lac = LAC(str(models))
    lac.add_word("春天的花/PLANT 开")
    words, tags = lac.run("春天的花开秋天的风")
    assert words[:2] == ["春天的花", "开"] and tags[0] == "PLANT"
    lac.add_word("秋天|的风/WIND", sep="|")
    assert LAC.run(lac, "秋天的风")[1][-1] == "WIND"


def test_items_are_applied_where_they_end_further_right_than_the_last():
    items = Items()
    for line in ("ab/X", "b/Y", "bcd/Z", "c"):
        items.add(line)
    assert list(items.by_text) == ["ab", "b", "bcd"]  # a single character without a type says nothing
    assert apply_items(items, Tagged(["abcd"], ["n-B"])).bio == ["X-B", "Z-B", "Z-I", "Z-I"]
    assert apply_items(items, Tagged(["a", "be"], ["n-B", "n-I"])).bio == ["X-B", "X-I", "n-B"]


def random_texts(count, seed):
    """Return texts of characters from all over Unicode, half surrogates, NUL and line ends among them."""
    rng = np.random.default_rng(seed)
    ranges = [(0, 0x80), (0x300, 0x370), (0x4E00, 0x9FFF), (0xD800, 0xE000), (0xFF00, 0xFFF0), (0x1F300, 0x1F700)]
    texts = []
    for _ in range(count):
        picked = [ranges[number] for number in rng.integers(0, len(ranges), rng.integers(0, 40))]
        texts.append("".join(chr(rng.integers(*bounds)) for bounds in picked))
    return texts


@pytest.mark.parametrize("mode", release.MODES)
def test_words_of_any_text_join_up_to_it(lac, mode):
    texts = random_texts(300, release.MODES.index(mode)) + ["👨‍👩‍👧", "e\u0301", "\ud83d", "\x00", "\n", " ", ""]
    answers = lac[mode].tag(texts)
    for text, found in zip(texts, answers):
        assert "".join(text[span.start : span.end] for span in found) == text
        assert all(span.start < span.end for span in found)


def test_a_long_text_and_many_empty_ones(lac):
    text = "今天天气很好，我们去公园散步。" * 4000
    words, tags = lac["lac"].run(text)
    assert "".join(words) == text and len(words) == len(tags)
    short, _ = lac["lac"].run("今天天气很好，我们去公园散步。" * 3)
    assert words[: len(short) - 8] == short[:-8]
    assert lac["lac"].run([""] * 100_000) == [[[], []]] * 100_000


@pytest.mark.parametrize(
    "texts, message",
    [(5, "got int"), (b"x", "got bytes"), (None, "got NoneType"), (["a", 3], "number 1 of the list is int")],
)
def test_wrong_types_are_named(lac, texts, message):
    with pytest.raises(TypeError, match=message):
        lac["lac"].run(texts)


def test_words_start_at_b_and_s_and_take_the_last_type_and_the_largest_weight():
    tagged = Tagged(["a", "b", "cc", "d", "e", "f"], ["x-I", "y-I", "x-B", "z-S", "z-E", "w-B"], [0, 2, 1, 0, 3, 1])
    found = tagged.spans()
    assert found == [(0, 2, "y", 2), (2, 4, "x", 1), (4, 6, "z", 3), (6, 7, "w", 1)]
    characters = apply_items(Items(), tagged)
    assert characters.spans() == found and characters.bio[2:4] == ["x-B", "x-I"]
    assert Tagged([], []).spans() == []


@pytest.mark.parametrize("mode", release.MODES)
def test_answers_are_the_same_without_cpp(models, mode, monkeypatch):
    monkeypatch.setattr(kernels, "library", lambda: None)
    assert LAC(str(models), mode).run([one["text"] for one in OFFICIAL]) == EXPECTED[mode]


@pytest.mark.parametrize("mode", release.MODES)
def test_random_white_space_and_line_ends_around_lines_change_no_answer(lac, tmp_path, mode):
    draw, texts = random.Random(0), [one["text"].strip() for one in OFFICIAL]
    expected = list(predict.predict(lac[mode], texts, "text"))
    for _ in range(5):
        blanks = [
            "".join(draw.choices(" \t\u3000\xa0\x0b", k=draw.choice([0, 0, 1, 3]))) for _ in range(2 * len(texts))
        ]
        lines = [start + text + end for start, text, end in zip(blanks[::2], texts, blanks[1::2])]
        content = "".join(line + draw.choice(["\n", "\r\n"]) for line in lines)
        (tmp_path / "lines").write_bytes(draw.choice(["", "\ufeff"]).encode() + content.encode())
        assert list(predict.predict(lac[mode], predict.input_lines([tmp_path / "lines"]), "text")) == expected
        records = map(json.loads, predict.predict(lac[mode], predict.input_lines([tmp_path / "lines"]), "json"))
        for line, record in zip(lines, records):
            assert "".join(record["words"]) == line
            assert {len(column) for column in record.values()} == {len(record["words"])}


def test_from_the_command_line(models):
    text = "百度是一家高科技公司\n\n"
    expected = {
        "lac": "百度/ORG 是/v 一家/m 高科技/n 公司/n",
        "rank": "百度/ORG/3 是/v/0 一家/m/2 高科技/n/3 公司/n/1",
    }
    for mode, line in expected.items():
        done = run_python("-m", "lac.predict", "--mode", mode, input=text)
        assert (done.returncode, done.stdout) == (0, line + "\n\n"), done.stderr
    done = run_python("-m", "lac.predict", "--mode", "rank", "--format", "json", input="百度公司")
    record = json.loads(done.stdout)
    assert list(record) == ["words", "tags", "weights"] and "".join(record["words"]) == "百度公司"


@pytest.fixture
def broken(models, tmp_path):
    shutil.copytree(models / "lac_model", tmp_path / "lac_model")
    return tmp_path / "lac_model"


@pytest.mark.parametrize(
    "name, change, message",
    [
        ("model/crfw", None, "missing crfw; it is not a released model, or not all of it"),
        ("model/fc_1.w_0", None, "missing fc_1.w_0"),
        ("model/word_emb", 1000, "word_emb: shape .* needs .* bytes of numbers, found"),
        ("conf/word.dic", 5000, "word.dic: line|no token OOV"),
        ("conf/tag.dic", 30, "tag.dic: line|its dictionary has"),
    ],
)
def test_what_is_missing_or_cut_short_is_named(broken, name, change, message):
    path = broken / name
    if change is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:change])
    with pytest.raises((InputError, PretrainedError), match=message):
        release.load(broken)


def test_only_the_models_are_unpacked_and_bad_archives_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tree = tmp_path / "tree" / "LAC-2.1.2"
    for mode in release.MODES:
        (tree / "LAC" / f"{mode}_model" / "conf").mkdir(parents=True)
        (tree / "LAC" / f"{mode}_model" / "conf" / "args.ini").write_text("x")
    (tree / "setup.py").write_text("raise SystemExit('executed')")
    archive = tmp_path / "LAC.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tree, "LAC-2.1.2")
    folder = release.fetch(str(archive))
    assert sorted(path.name for path in folder.iterdir()) == ["lac_model", "rank_model", "seg_model"]
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tree, "../LAC-2.1.2")
    with pytest.raises(InputError, match="leads out of the folder"):
        release.fetch(str(archive))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="not the package LAC==2.1.2"):
        release.fetch(str(tmp_path / "empty"))


def test_two_processes_that_fill_the_cache_get_the_package_once(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    calls = []

    def download(folder):
        calls.append(folder)
        time.sleep(0.2)
        with tarfile.open(Path(folder) / "LAC.tar.gz", "w:gz") as tar:
            for mode in release.MODES:
                tar.add(GOLDEN, f"LAC-2.1.2/LAC/{mode}_model/conf")
        return Path(folder) / "LAC.tar.gz"

    monkeypatch.setattr(release, "_download", download)
    with ThreadPoolExecutor(2) as pool:
        folders = list(pool.map(lambda _: release.fetch(), range(2)))
    assert len(calls) == 1 and folders[0] == folders[1] and len(list(folders[0].iterdir())) == 3
    assert [entry.name for entry in folders[0].parent.iterdir()] == [folders[0].name]


def test_what_pip_says_first_is_handed_on(tmp_path, monkeypatch):
    output = "Building\n  WARNING: Building wheel for x failed: no room\n  ERROR: y\nnote: This error is not ours."
    ended = subprocess.CompletedProcess([], 1, stdout=output)
    monkeypatch.setattr(release.subprocess, "run", lambda *_, **__: ended)
    with pytest.raises(InputError, match="get LAC==2.1.2: WARNING: Building wheel for x failed: no room; give"):
        release._download(str(tmp_path))


def train_on(model, folder, lines, *flags):
    """Train a model on with the command line's flags; return its tagger."""
    path = folder.with_name(folder.name + ".txt")
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    train.run(["--init_from", str(model), "--train_data", str(path), "--model_save_dir", str(folder), *map(str, flags)])
    return LAC(str(folder))


ONE_TINY_STEP = ("--num_iterations", 1, "--base_learning_rate", 1e-12)
LM = ROOT / "tests" / "golden" / "lm_small"
WITH_ELMO = ("--pretrain_elmo_model_path", LM / "checkpoint", "--elmo_dict_dir", LM / "vocab.txt")
LINES = {"lac": "喵星球/LOC 的/u 汪汪/PER 来/v 了/u", "seg": "喵 星球的 汪 汪来 了"}


@pytest.mark.parametrize("mode, flags", [("lac", ()), ("seg", ()), ("lac", WITH_ELMO)])
def test_a_checkpoint_and_an_export_of_a_released_model_answer_as_it_does(models, tmp_path, mode, flags):
    kept = train_on(models / f"{mode}_model", tmp_path / "run", [LINES[mode]], *ONE_TINY_STEP, *flags)
    assert (kept.model.tagger.encoder is not None) == bool(flags)
    export.main(["--model", str(tmp_path / "run"), "--output", str(tmp_path / "exported")])
    for lac, few in ((kept, 53), (LAC(str(tmp_path / "exported")), 12)):  # programs are slow
        lac.mode = mode
        assert lac.run([one["text"] for one in OFFICIAL[:few]]) == EXPECTED[mode][:few]


@pytest.mark.parametrize("mode", ["lac", "seg"])
def test_training_on_teaches_a_model_new_lines(models, tmp_path, mode):
    (tmp_path / "mine.txt").write_text((LINES[mode] + "\n") * 12, encoding="utf-8")
    lac = LAC(str(models / f"{mode}_model"), mode)
    expected = [item.rpartition("/") for item in LINES[mode].split()]
    words = [word or kind for word, _, kind in expected]
    text = "".join(words)
    right = words if mode == "seg" else [words, [kind for _, _, kind in expected]]
    assert lac.run(text) != right
    flags = dict(max_epoch=3, batch_size=2)
    lac.train(str(tmp_path / "new"), str(tmp_path / "mine.txt"), str(tmp_path / "mine.txt"), **flags)
    new = LAC(str(tmp_path / "new"))  # one that only cuts answers with words alone, whatever the mode
    assert lac.run(text) == right == new.run(text)
    (printed,) = predict.predict(new, [text], "text")
    assert printed == (" ".join(words) if mode == "seg" else LINES["lac"])


def test_training_on_can_be_stopped_and_gone_on_with(models, tmp_path):
    lines = [LINES["lac"], "汪汪/PER 来/v", "的/u 喵/n"]
    taggers = []
    for name, parts in (("at_once", [4]), ("in_parts", [1, 4])):
        for steps in parts:
            flags = ("--num_iterations", steps, "--batch_size", 1, "--load_dir", "auto")
            lac = train_on(models / "lac_model", tmp_path / name, lines, *flags)
        taggers.append(lac.model.tagger.state_dict())
    for name, values in taggers[0].items():
        assert np.array_equal(values.numpy(), taggers[1][name].numpy()), name


def test_lines_become_the_models_tokens_and_tags(models):
    text = release.load(models / "lac_model").text
    for line in ("百度/ORG 是家/v 高科技/n", "百度 是家 高科技\tORG v n"):
        lines = [Line(parse_line(line), "here")]
        trained, held_out = text.training_sentences(lines)[0], text.held_out_sentences(lines)[0]
        assert trained.gold == held_out.gold == [Span(0, 2, "ORG"), Span(2, 4, "v"), Span(4, 7, "n")]
        assert "".join(trained.words) == "".join(held_out.words) == "百度是家高科技"
        assert spans(trained.words, trained.tags) == trained.gold
    (crossing,) = text.training_sentences([Line(parse_line("高/a 科技/n 公/n 司机/n"), "here")])
    assert spans(crossing.words, crossing.tags) == crossing.gold


@pytest.mark.parametrize(
    "line, message",
    [
        ("图灵/XYZ 在/p", "line 2: unknown type 'XYZ' of word '图灵'; the model has a, ad"),
        ("图灵 在\tPER O", "line 2: '在' is in no word; the model gives each character one"),
        ("图灵 在/p", "line 2: expected word/type, found '图灵'"),
    ],
)
def test_lines_that_cannot_be_trained_on_are_named(models, tmp_path, line, message):
    with pytest.raises(InputError, match=message):
        train_on("lac", tmp_path / "run", ["在/p", line])


def test_with_an_elmo_mix_the_first_scores_are_the_released_ones(models):
    folder = models / "lac_model"
    plain = release.load(folder)
    tagger = release.load(folder, encoder=ElmoEncoder(50, 8, 16)).tagger
    rng = np.random.default_rng(0)
    words, elmo = (paddle.to_tensor(rng.integers(0, high, (3, 9))) for high in (plain.text.size, 50))
    lengths = paddle.to_tensor([9, 4, 7])
    inside = np.arange(9) < lengths.numpy()[:, None]
    mine, right = (t.numpy()[inside] for t in (tagger(words, lengths, elmo), plain.tagger(words, lengths)))
    assert largest_difference(mine, right) < 1e-5
    tagger.train()
    tagger.costs(words, lengths, paddle.to_tensor(rng.integers(0, 49, (3, 9))), elmo).sum().backward()
    assert float(tagger.blocks[0].forward_gru.input_w.grad[:16].abs().max()) > 0  # the new columns can be trained


@pytest.mark.parametrize("line, sep", [("礼拜二/TIME ", "#"), (" 礼拜二/TIME\r\n", None), ("礼拜二/TIME\r", "#")])
def test_white_space_around_an_item_is_none_of_it(line, sep):
    items = Items()
    items.add(line, sep)
    assert items.by_text == {"礼拜二": [("礼拜二", "TIME")]}


def test_an_item_with_an_empty_type_keeps_the_taggers(models):
    items = Items()
    items.add("北京/")
    assert items.by_text == {"北京": [("北京", "")]}


def test_training_by_the_flags_of_lac_2_1_and_a_wrong_one_end_no_program(lac, tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(train, "run", given.append)
    monkeypatch.setattr("lac.model.load", lambda folder: None)
    tagger = LAC(str(release.fetch()))
    tagger.train(str(tmp_path / "mine"), "lines.txt", "dev.txt", iter_num=10, thread_num=10)
    (flags,) = given
    assert flags[flags.index("--max_epoch") + 1] == "10" and "--thread_num" not in flags and "--iter_num" not in flags
    LAC(str(release.fetch()), "seg").train(str(tmp_path / "mine"), ["a.txt", "b.txt"])
    at = given[1].index("--train_data")
    assert given[1][at + 1 : at + 3] == ["a.txt", "b.txt"]
    assert given[1][given[1].index("--init_from") + 1] == str(release.fetch() / "seg_model")
    monkeypatch.undo()
    with pytest.raises(OptionError, match="unrecognized arguments: --no_such_flag"):
        LAC(str(release.fetch())).train(str(tmp_path / "mine"), "lines.txt", no_such_flag=1)


def test_the_released_models_have_their_names_everywhere(models):
    assert LAC("lac").run("百度是一家高科技公司") == LAC().run("百度是一家高科技公司")
    assert LAC("seg").run("百度是一家") == LAC(mode="seg").run("百度是一家")


def test_readmes_example_runs(models, capsys):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = next(part for part in text.split("```python\n")[1:] if part.startswith("from lac import LAC"))
    exec(compile(block.split("```")[0], "README.md", "exec"), {})
    assert "'高科技公司'" in capsys.readouterr().out
