"""preprocess.py: raw documents to shards and vocabulary."""

import json
import os
import re
import subprocess
import sys
import time

from elmo_chinese import files
from elmo_chinese.text.segmenter import JiebaSegmenter, segmenter_of
from elmo_chinese.text.vocabulary import Vocabulary, note_path

import jieba
import numpy as np
import pytest
from conftest import ROOT

import lac.train
import preprocess


@pytest.fixture
def raw(tmp_path):
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / "a.txt").write_text("北京是中国的首都。上海在海边。\n\n上海在海边。猫爱吃鱼！\n", encoding="utf-8")
    (folder / "b.txt").write_text("\n\n".join(f"这是第{number}个文件。" for number in range(200)), encoding="utf-8")
    return folder


def lines(folder):
    return [line for path in sorted(folder.glob("*.txt")) for line in path.read_text(encoding="utf-8").splitlines()]


def test_shards_hold_every_sentence_once_and_nothing_is_lost(raw, tmp_path, capsys):
    out = tmp_path / "out"
    preprocess.main(
        ["sentences", "--input", str(raw), "--output", str(out), "--shard_size", "2KB", "--dev_fraction", "0.2"]
    )
    train, dev = lines(out / "train"), lines(out / "dev")
    assert len(set(train + dev)) == len(train + dev) == 203
    assert "1 repeated ones dropped" in capsys.readouterr().out
    assert 20 < len(dev) < 60 and len(list((out / "train").iterdir())) > 1
    assert {line.replace(" ", "") for line in train + dev} >= {"北京是中国的首都。", "猫爱吃鱼！"}
    assert " ".join(jieba.cut("北京是中国的首都。")) in train + dev


def test_dev_is_the_same_every_time_and_whole_documents(raw, tmp_path):
    for name in ("one", "two"):
        preprocess.main(["sentences", "--input", str(raw), "--output", str(tmp_path / name), "--dev_fraction", "0.3"])
    assert lines(tmp_path / "one" / "dev") == lines(tmp_path / "two" / "dev")


def tree(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def run(raw, output, *more):
    preprocess.main(
        [
            "sentences",
            "--input",
            str(raw),
            "--output",
            str(output),
            "--shard_size",
            "1KB",
            "--dev_fraction",
            "0.2",
            *more,
        ]
    )
    return tree(output)


def test_the_number_of_workers_changes_nothing_and_the_summary_is_true(raw, tmp_path, monkeypatch):
    monkeypatch.setattr("elmo_chinese.text.corpus.documents.CHUNK", 100)
    one = run(raw, tmp_path / "one", "--workers", "1")
    assert run(raw, tmp_path / "three", "--workers", "3") == one
    assert len(one) > 7 and one["summary.png"].startswith(b"\x89PNG")
    summary = json.loads(one["summary.json"].decode("utf-8"))
    train, dev = lines(tmp_path / "one" / "train"), lines(tmp_path / "one" / "dev")
    assert [summary[part]["sentences"] for part in ("train", "dev")] == [len(train), len(dev)]
    assert [summary[part]["words"] for part in ("train", "dev")] == [
        sum(map(len, map(str.split, p))) for p in (train, dev)
    ]
    assert summary["train"]["documents"] + summary["dev"]["documents"] == 202
    assert summary["train"]["shards"] == len(list((tmp_path / "one" / "train").iterdir()))
    lengths = sorted(len(line.split()) for line in train + dev)
    assert [lengths.count(number) for number in range(lengths[-1] + 1)] == summary["sentences_by_words"]
    of_all = summary["words_per_sentence"]
    assert [of_all["median"], of_all["longest"]] == [lengths[len(lengths) // 2], lengths[-1]]
    assert of_all["mean"] == round(sum(lengths) / len(lengths), 2)
    assert summary["dropped"] == {"repeated_sentences": 1, "documents_without_text": 0, "bad_files": []}


class Killed(BaseException):
    pass


@pytest.mark.parametrize("duplicates", ["drop", "keep"])
def test_killed_at_any_file_operation_and_started_again_it_writes_the_same(raw, tmp_path, monkeypatch, duplicates):
    monkeypatch.setattr("elmo_chinese.text.corpus.documents.CHUNK", 200)
    (raw / "c.txt").write_text((raw / "b.txt").read_text(encoding="utf-8"), encoding="utf-8")
    more = ("--workers", "1", "--duplicates", duplicates)
    whole = run(raw, tmp_path / "whole", *more)
    real, calls, renamed = os.replace, [], []

    def replace(source, target):
        calls.append(target)
        if len(calls) % 13 == 6:
            raise Killed  # before the rename
        real(source, target)
        renamed.append(str(target))
        if len(calls) % 13 == 0:
            raise Killed  # after it

    monkeypatch.setattr(os, "replace", replace)
    kills, done = 0, False
    while not done:
        try:
            run(raw, tmp_path / "killed", *more)
            done = True
        except Killed:
            kills += 1
            assert kills < 100
            done = any((tmp_path / "killed").glob(".unfinished.*.tmp"))  # it was the last rename of all
    written = tree(tmp_path / "killed")
    assert {name: written[name] for name in written if not name.startswith(".unfinished")} == whole
    assert kills >= 3
    # A complete shard is written again only if its state was not, which is at most once for each kill.
    assert sum("part_" in name for name in renamed) <= sum("part_" in name for name in whole) + 4 * kills


def test_kill_9_and_the_workers_end_too(raw, tmp_path):
    (raw / "d.txt").write_text(
        "\n\n".join(f"北京有{n}个公园，上海有{n + 1}条河。" for n in range(30000)), encoding="utf-8"
    )
    arguments = ["sentences", "--input", str(raw), "--output", str(tmp_path / "killed"), "--shard_size", "40KB"]
    code = "import sys, preprocess; preprocess.main(sys.argv[1:])"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments, "--workers", "2"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    first = tmp_path / "killed" / "train" / "part_00000.txt"
    deadline = time.time() + 120
    while not first.exists():
        assert time.time() < deadline and process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    written = first.stat().st_mtime_ns
    while True:  # its process group is empty once the workers have ended
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            break
        assert time.time() < deadline
        time.sleep(0.1)
    preprocess.main([*arguments, "--workers", "1"])
    arguments[4] = str(tmp_path / "whole")
    preprocess.main([*arguments, "--workers", "1"])
    assert tree(tmp_path / "killed") == tree(tmp_path / "whole")
    assert first.stat().st_mtime_ns == written


def test_an_unfinished_run_is_gone_on_with_only_as_it_was_begun(raw, tmp_path, monkeypatch, capsys):
    def die(*_):
        raise Killed

    monkeypatch.setattr(preprocess, "finish", die)
    with pytest.raises(Killed):
        run(raw, tmp_path / "out")
    monkeypatch.undo()
    with pytest.raises(SystemExit):
        run(raw, tmp_path / "out", "--normalise", "half")
    assert "unfinished run with other settings (--normalise was 'none')" in capsys.readouterr().err
    state = tmp_path / "out" / ".unfinished" / "state.json"
    started = json.loads(state.read_text(encoding="utf-8"))
    state.write_text(json.dumps({**started, "position": [1, 0]}), encoding="utf-8")
    with open(raw / "b.txt", "a", encoding="utf-8") as file:
        file.write("又一句。")
    with pytest.raises(SystemExit):
        run(raw, tmp_path / "out")
    assert "b.txt has changed since this run was started" in capsys.readouterr().err


def test_bad_files_are_skipped_and_counted_when_asked(raw, tmp_path, capsys):
    (raw / "bad.txt").write_bytes("中文内容很多很多".encode() + b"\xff")
    (raw / "gbk.txt").write_bytes("国标编码的文件，不长。".encode("gb18030"))
    with pytest.raises(SystemExit):
        run(raw, tmp_path / "out")
    error = capsys.readouterr().err
    assert (
        "bad.txt: looks like UTF-8, but is not from end to end: byte 24 is 0xff" in error
        and "--on_bad_file skip" in error
    )
    assert not (tmp_path / "out").exists()
    written = run(raw, tmp_path / "out", "--on_bad_file", "skip")
    assert "1 bad files left out" in capsys.readouterr().out
    summary = json.loads(written["summary.json"].decode("utf-8"))
    assert [("bad.txt" in text and "byte 24" in text) for text in summary["dropped"]["bad_files"]] == [True]
    assert summary["files"]["read"] == 3 and summary["files"]["gb18030"] == 1
    assert "国标" in "".join(lines(tmp_path / "out" / "train") + lines(tmp_path / "out" / "dev"))


def test_a_long_document_stays_whole_and_duplicates_may_stay(tmp_path, monkeypatch):
    monkeypatch.setattr("elmo_chinese.text.corpus.documents.PIECE", 50)
    monkeypatch.setattr("elmo_chinese.text.corpus.documents.CHUNK", 60)
    segmenter = JiebaSegmenter()
    texts = [[f"文{number}的第{line}行，都一样。好。" for line in range(10)] for number in range(20)]
    with open(tmp_path / "a.jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps({"body": "\n".join(text)}) + "\n" for text in [*texts, [" "]])
    run(tmp_path / "a.jsonl", tmp_path / "out", "--text_field", "body", "--duplicates", "keep")
    train, dev = (set(lines(tmp_path / "out" / part)) for part in ("train", "dev"))
    for number in range(20):
        own = {" ".join(segmenter.cut(line.split("。")[0] + "。")) for line in texts[number]}
        assert own <= train and not own & dev or own <= dev and not own & train
    summary = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    assert summary["train"]["sentences"] + summary["dev"]["sentences"] == 400
    assert summary["dropped"]["documents_without_text"] == 1 and summary["dropped"]["repeated_sentences"] == 0
    assert summary["train"]["documents"] + summary["dev"]["documents"] == 21 and dev and train


@pytest.mark.parametrize("form", ["lines", "wiki", "json"])
def test_one_long_document_has_a_dev_part_whoever_cuts_it_and_however_often_killed(tmp_path, monkeypatch, form):
    paragraphs = [f"这是第{number}段，里面写了{number + 7}件事。它还有第二句{number}。" for number in range(3000)]
    text = "\n".join(paragraphs)
    text = {"wiki": f"<doc id=1>\n{text}\n</doc>", "json": json.dumps({"text": text})}.get(form, text)
    (tmp_path / "book").write_text(text, encoding="utf-8")
    monkeypatch.setattr("elmo_chinese.text.corpus.documents.PIECE", 7000)
    monkeypatch.setattr("elmo_chinese.text.corpus.documents.CHUNK", 3000)
    one = run(tmp_path / "book", tmp_path / "one", "--dev_fraction", "0.05", "--workers", "1")
    assert run(tmp_path / "book", tmp_path / "two", "--dev_fraction", "0.05", "--workers", "2") == one
    train, dev = (lines(tmp_path / "one" / part) for part in ("train", "dev"))
    assert len(train) + len(dev) == 6000 and 250 < len(dev) < 350
    in_dev = {line.replace(" ", "") for line in dev}
    whole = [sum(sentence + "。" in in_dev for sentence in p.split("。")[:2]) for p in paragraphs]
    assert set(whole) == {0, 2}  # no paragraph is torn apart
    assert np.count_nonzero(np.diff(whole)) < 20  # in blocks, not here and there

    saves, real = [], preprocess.write_json

    def write_json(path, *content, **more):
        real(path, *content, **more)
        saves.append(path)
        if len(saves) % 7 == 0 and path.name == "state.json":
            raise Killed

    monkeypatch.setattr(preprocess, "write_json", write_json)
    kills = 0
    while not (tmp_path / "killed" / "summary.json").exists():
        try:
            run(tmp_path / "book", tmp_path / "killed", "--dev_fraction", "0.05", "--workers", "1")
        except Killed:
            kills += 1
    assert kills > 3 and tree(tmp_path / "killed") == one


def test_a_text_that_leaves_nothing_for_one_part_says_what_to_do(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("只有一段。\n还有一行。", encoding="utf-8")
    run(tmp_path / "a.txt", tmp_path / "out", "--dev_fraction", "0.0001")
    assert re.search("nothing fell to dev: .*blank lines separate.*raise --dev_fraction", capsys.readouterr().out)
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path / "a.txt", tmp_path / "none", "--dev_fraction", "0.9999")
    error = capsys.readouterr().err
    assert stopped.value.code == 1 and re.search("all 2 sentences of the 1 documents fell to dev.*lower --dev_f", error)


def test_words_are_cut_by_a_dictionary_or_as_a_tagger_cuts_them(raw, tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("北京是 9\n中国的 9 x\n首都 9\n", encoding="utf-8")
    for workers in ("1", "2"):
        run(raw, tmp_path / workers, "--cutter", str(path), "--workers", workers)
        written = lines(tmp_path / workers / "train") + lines(tmp_path / workers / "dev")
        assert "北京是 中国的 首都 。" in written and "这 是 第 199 个 文 件 。" in written
    (tmp_path / "tagged.txt").write_text("这是第/PREFIX 个/q 文件/n\n", encoding="utf-8")
    flags = ["--word_emb_dim", "2", "--grnn_hidden_dim", "2", "--num_iterations", "1", "--use_gpu", "false"]
    model = str(tmp_path / "model")
    lac.train.main(["--train_data", str(tmp_path / "tagged.txt"), "--model_save_dir", model, *flags])
    run(raw, tmp_path / "tagger", "--cutter", model)
    assert "这是第 199 个 文件 。" in lines(tmp_path / "tagger" / "train") + lines(tmp_path / "tagger" / "dev")


def test_any_name_works_in_any_locale(tmp_path):
    """Chinese names where Python takes them for ASCII, and names that are no UTF-8, of files that are read and not."""
    folder = tmp_path / "文本"
    folder.mkdir()
    (folder / "甲.txt").write_text("北京是中国的首都。\n\n上海在海边。\n", encoding="utf-8")
    odd = os.fsencode(folder) + b"/\xff"
    for name, content in ((b"a", "猫爱吃鱼。".encode()), (b"b", b"\xd6\xd0\xff\xff")):
        with open(odd + name, "wb") as file:
            file.write(content)
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    arguments = ["sentences", "--input", folder, "--output", tmp_path / "语料", "--on_bad_file", "skip"]
    for more in (arguments, ["vocabulary", "--input", tmp_path / "语料" / "train", "--output", tmp_path / "词.txt"]):
        done = subprocess.run([sys.executable, ROOT / "preprocess.py", *more], env=environment, capture_output=True)
        assert done.returncode == 0 and b"Traceback" not in done.stderr, done.stderr
    (bad,) = json.loads((tmp_path / "语料" / "summary.json").read_text(encoding="utf-8"))["dropped"]["bad_files"]
    assert "b: looks like GB18030" in bad and "\udcff" in bad
    assert "猫爱吃鱼。" in "".join(lines(tmp_path / "语料" / "train")).replace(" ", "")


def test_vocabulary_command(raw, tmp_path, capsys):
    path = tmp_path / "v" / "vocabulary.txt"
    (raw / "c.txt").write_text("猫 爱 鱼\n猫 爱\n", encoding="utf-8")
    preprocess.main(["vocabulary", "--input", str(raw / "c.txt"), "--output", str(path), "--min_count", "2"])
    assert Vocabulary(path).words == ["<S>", "</S>", "<UNK>", "爱", "猫"]
    assert "5 words, 80.00 % of the text covered; the rest is <UNK>: with little" in capsys.readouterr().out


def test_a_vocabulary_knows_how_its_text_was_cut(raw, tmp_path, capsys):
    first, out = tmp_path / "first.txt", tmp_path / "out"
    first.write_text("<S>\n</S>\n<UNK>\n是中\n国的\n文\n件\n", encoding="utf-8")
    run(raw, out, "--cutter", str(first), "--normalise", "half", "--dev_fraction", "0.1")
    written = lines(out / "train") + lines(out / "dev")
    assert "北 京 是中 国的 首 都 。" in written
    for name, source in [("all.txt", out / "train"), ("shard.txt", out / "train" / "part_00000.txt")]:
        preprocess.main(["vocabulary", "--input", str(source), "--output", str(tmp_path / name)])
        vocabulary = Vocabulary(tmp_path / name)
        assert vocabulary.note["width"] == "half" and "国的" in vocabulary.note["dictionary"]
        assert segmenter_of(vocabulary).cut("是中国的：") == ["是中", "国的", ":"]
    run(raw, tmp_path / "again", "--cutter", str(tmp_path / "all.txt"), "--dev_fraction", "0.1")
    assert lines(tmp_path / "again" / "train") == lines(out / "train")
    run(raw, tmp_path / "jieba", "--dev_fraction", "0.1")
    both = [str(tmp_path / "jieba" / "train"), str(out / "train")]
    preprocess.main(["vocabulary", "--input", *both, "--output", str(tmp_path / "all.txt")])
    assert Vocabulary(tmp_path / "all.txt").note is None  # two ways: no one of them
    note_path(tmp_path / "all.txt").write_text("my own", encoding="utf-8")
    with pytest.raises(SystemExit):
        preprocess.main(["vocabulary", "--input", *both, "--output", str(tmp_path / "all.txt")])
    assert "all.segmenter.json: not a note on how text was cut" in capsys.readouterr().err
    assert note_path(tmp_path / "all.txt").read_text(encoding="utf-8") == "my own"


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["sentences", "--input", "nowhere", "--output", "OUT"], "no file matches 'nowhere'"),
        (["sentences", "--input", "RAW", "--output", "RAW/a.txt"], "a.txt/train is in .*raw, which is an input"),
        (["sentences", "--input", "RAW", "--output", "FILE"], "cannot write .*file: File exists"),
        (
            ["sentences", "--input", "RAW", "--output", "OUT", "--user_dict", "RAW/gbk"],
            "gbk: not UTF-8: line 1, byte 0",
        ),
        (
            ["sentences", "--input", "RAW", "--output", "OUT", "--cutter", "RAW/a.txt"],
            "a.txt: line 1: expected `word c",
        ),
        (["sentences", "--input", "RAW", "--output", "OUT", "--cutter", "RAW"], "raw: no checkpoint in it"),
        (
            ["sentences", "--input", "RAW", "--output", "OUT", "--cutter", "RAW/a.txt", "--user_dict", "x"],
            "one of them",
        ),
        (["sentences", "--input", "RAW/empty", "--output", "OUT"], "empty is empty"),
        (["sentences", "--input", "RAW", "--output", "OUT", "--shard_size", "0"], "must be a size such as 100MB"),
        (["sentences", "--input", "RAW", "--output", "OUT", "--dev_fraction", "1"], "below 1, got '1'"),
        (["vocabulary", "--input", "RAW/blank", "--output", "OUT"], "no word stands --min_count 2 times"),
        (["sentences", "--input", "RAW/blank", "--output", "OUT"], "no text in the 1 files"),
        (["vocabulary", "--input", "RAW/gbk", "--output", "OUT"], "gbk: not UTF-8: line 1, byte 0"),
    ],
)
def test_bad_input_is_a_clear_error(raw, tmp_path, capsys, arguments, message):
    (raw / "gbk").write_bytes("中文".encode("gb18030"))
    (raw / "empty").write_bytes(b"")
    (raw / "blank").write_bytes(b" \n\n")
    (tmp_path / "file").write_bytes(b"")
    arguments = [
        a.replace("RAW", str(raw)).replace("OUT", str(tmp_path / "out")).replace("FILE", str(tmp_path / "file"))
        for a in arguments
    ]
    with pytest.raises(SystemExit) as stopped:
        preprocess.main(arguments)
    error = capsys.readouterr().err
    assert stopped.value.code == 1 and re.search(message, error) and "Traceback" not in error


def test_two_runs_into_one_output_do_not_mix(raw, tmp_path, monkeypatch, capsys):
    with files.lock_folder(tmp_path / "out", ""):  # the other one
        monkeypatch.setattr(files, "LOCK_TRIES", 0)
        with pytest.raises(SystemExit) as stopped:
            run(raw, tmp_path / "out")
    error = capsys.readouterr().err
    assert stopped.value.code == 1 and re.search("another run is writing to .*out; .*choose another --output", error)
    assert run(raw, tmp_path / "out")


def test_nothing_is_overwritten(raw, tmp_path, capsys):
    arguments = ["sentences", "--input", str(raw), "--output", str(tmp_path / "out")]
    preprocess.main(arguments)
    before = lines(tmp_path / "out" / "train")
    with pytest.raises(SystemExit):
        preprocess.main(arguments)
    assert "train is there already" in capsys.readouterr().err and lines(tmp_path / "out" / "train") == before


def test_the_projects_own_corpus_is_what_data_readme_says():
    train, dev = lines(ROOT / "data" / "train"), lines(ROOT / "data" / "dev")
    raw = [line for line in lines(ROOT / "data" / "text") if line]
    assert len(raw) >= 500 and len(list((ROOT / "data" / "text").iterdir())) >= 20
    assert len(set(train + dev)) == len(train + dev) == len(set(raw)) == len(raw)
    assert {line.replace(" ", "") for line in train + dev} == {line.replace(" ", "") for line in raw}
    words, _ = Vocabulary.build(ROOT / "data" / "train", min_count=2)
    assert Vocabulary(ROOT / "data" / "vocabulary.txt").words == words
