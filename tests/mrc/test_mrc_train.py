"""mrc.train and mrc.predict: runs that are shared, killed and resumed, and questions in and answers out."""

import json
import re
import shutil
import sys

from elmo_chinese.storage import checkpoint
from elmo_chinese.training.metrics import read_metrics

import numpy as np
import paddle
import pytest
from conftest import GOLDEN, LM, largest_difference, run_python

import mrc.train
from mrc import model as reading
from mrc import predict
from mrc.questions import read

PLACES = ["长江", "黄河", "珠江", "淮河", "泰山", "黄山", "北京", "上海"]
SMALL = [
    *("--pretrain_elmo_model_path", str(LM / "checkpoint"), "--elmo_dict_dir", str(LM / "vocab.txt")),
    *("--word_emb_dim", "8", "--hidden_size", "6", "--batch_size", "9", "--max_epoch", "3", "--log_interval", "1"),
    *("--use_gpu", "false", "--random_seed", "11", "--base_learning_rate", "0.02", "--keep", "9"),
    *("--max_answer_len", "4", "--score", "f1"),
]


def squad(articles):
    """Return SQuAD's form of `[(context, [(id, question, answer), …]), …]`."""
    paragraphs = [
        {
            "context": context,
            "qas": [
                {"id": name, "question": question, "answers": [{"text": text, "answer_start": context.index(text)}]}
                for name, question, text in asked
            ],
        }
        for context, asked in articles
    ]
    return json.dumps({"version": "x", "data": [{"paragraphs": paragraphs}]}, ensure_ascii=False)


def articles(seed, count):
    """Return that many contexts with one to three questions each, about which place has which number."""
    random, found = np.random.default_rng(seed), []
    for number in range(count):
        places = random.permutation(PLACES)[:3]
        values = random.integers(10, 99, 3).tolist()
        context = "。".join(f"{place}的号码是{value}" for place, value in zip(places, values)) + "。"
        asked = [
            (f"{seed}_{number}_{n}", f"{place}的号码是多少？", str(value))
            for n, (place, value) in enumerate(zip(places, values))
        ]
        found.append((context, asked[: number % 3 + 1]))
    return found


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Flags that name 24 training passages (48 questions, 6 steps a pass) and 6 dev passages."""
    folder = tmp_path_factory.mktemp("questions")
    (folder / "train.json").write_text(squad(articles(0, 24)), encoding="utf-8")
    (folder / "dev.json").write_text(squad(articles(1, 6)), encoding="utf-8")
    return ["--train_data", str(folder / "train.json"), "--dev_data", str(folder / "dev.json")]


@pytest.fixture(scope="module")
def trained(files, tmp_path_factory):
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    mrc.train.main([*files, *SMALL, "--model_save_dir", str(folder)])
    return folder


def records(root):
    """Return the records of a run without what depends on the clock."""
    found = read_metrics(root / "log" / "metrics.jsonl")
    return [{k: v for k, v in record.items() if k not in ("time", "tokens_per_second")} for record in found]


def last(root):
    return checkpoint.load_newest(root)[0]


def test_a_run_learns_and_keeps_the_best_model(trained):
    epochs = [record for record in records(trained) if record["kind"] == "epoch"]
    assert len(epochs) == 3 and epochs[2]["loss"] < 0.9 * epochs[0]["loss"]
    assert sum(record["kind"] == "train" for record in records(trained)) == 18
    best = max(range(3), key=lambda number: epochs[number]["f1"])
    folder = checkpoint.resolve(trained)
    assert folder.name.startswith(f"step_{6 * (best + 1):08d}")
    info = json.loads((folder / checkpoint.INFO_FILE).read_text(encoding="utf-8"))
    assert info["dev"]["f1"] == epochs[best]["f1"] == info["score"]["value"] and info["dev"]["questions"] == 12
    assert info["limits"] == {"passage": 500, "question": 60, "answer": 4} and info["elmo"]["layer_norm"]
    assert epochs[0].keys() >= {"rouge_l", "bleu_4", "em", "gamma", "mix_0", "mix_1", "mix_2"}


def test_resumed_equals_undisturbed_to_the_bit(files, trained, tmp_path):
    flags = [*files, *SMALL, "--model_save_dir", str(tmp_path)]
    mrc.train.main([*flags, "--num_iterations", "8"])  # inside a pass
    checkpoint.write_text(tmp_path / "latest", "step_00000006\n")
    mrc.train.main([*flags, "--load_dir", "auto", "--num_iterations", "0"])
    assert records(trained) == records(tmp_path)
    a, b = last(trained), last(tmp_path)
    for mine, theirs in ((a.model, b.model), (a.optimizer, b.optimizer)):
        assert mine.keys() == theirs.keys() and all(np.array_equal(mine[name], theirs[name]) for name in mine)


def test_two_processes_equal_one(files, tmp_path):
    # 24 passages in batches of 23: the last has one passage, so that one process has none
    flags = [*files, *SMALL, "--batch_size", "46", "--max_epoch", "2"]
    mrc.train.main([*flags, "--model_save_dir", str(tmp_path / "one")])
    launch = ["-m", "paddle.distributed.launch", "--nproc_per_node", "2", "--log_level", "WARNING"]
    launch += ["--log_dir", str(tmp_path / "launch"), sys.executable, "-m", "mrc.train"]
    done = run_python(*launch, *flags, "--model_save_dir", tmp_path / "two", env=gloo(), timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    one, two = records(tmp_path / "one"), records(tmp_path / "two")
    assert len(one) == len(two) == 6
    for mine, theirs in zip(one, two):
        assert mine.pop("kind") == theirs.pop("kind") and mine == pytest.approx(theirs, rel=1e-3, abs=1e-4)
    a, b = last(tmp_path / "one").model, last(tmp_path / "two").model
    differences = {name: largest_difference(a[name], b[name]) for name in a}
    assert max(differences.values()) < 1e-3, differences


def gloo():
    import os

    return {**os.environ, "PADDLE_DISTRI_BACKEND": "gloo", "GLOG_minloglevel": "2"}


@pytest.mark.parametrize("flags", [["--elmo_cache", "off"], ["--elmo_cache", "float16"]])
def test_the_cache_of_layers_changes_nothing(files, trained, tmp_path, flags):
    mrc.train.main([*files, *SMALL, *flags, "--model_save_dir", str(tmp_path), "--max_epoch", "1"])
    mine, theirs = ([r["loss"] for r in records(root) if r["kind"] == "train"] for root in (trained, tmp_path))
    assert mine[:6] == pytest.approx(theirs, rel=1e-2 if "float16" in flags else 1e-5)
    assert not list(tmp_path.glob("elmo_layers*"))


@pytest.mark.parametrize(
    "flags", [["--pretrain_elmo_model_path", "", "--elmo_dict_dir", ""], ["--elmo_vectors", "lookup"]]
)
def test_all_arms_start_from_the_same_words_and_batches(files, trained, tmp_path, flags, capsys):
    mrc.train.main(
        [*files, *SMALL, *flags, "--max_epoch", "1", "--model_save_dir", str(tmp_path), "--test_data", files[3]]
    )
    assert re.search(r"test +Rouge-L \d", capsys.readouterr().out)
    mine, theirs = last(tmp_path), last(trained)
    words = [(found.path / "vocabulary.txt").read_bytes() for found in (mine, theirs)]
    assert words[0] == words[1] and (mine.info["elmo"] is None) == ("" in flags)


def test_typed_questions_and_files_are_answered(trained, files, tmp_path, capsys):
    context, ((_, question, _), *_) = articles(1, 1)[0]
    predict.main(["--model", str(trained), "--question", question, "--text", "没有。", context, "--format", "json"])
    found = json.loads(capsys.readouterr().out)
    assert found["answer"] == ["没有。", context][found["document"]][found["start"] : found["end"]]
    assert 0 < found["probability"] < 1 and list(found) == ["answer", "document", "start", "end", "probability"]
    predict.main(["--model", str(trained), "--question", question, "--text", context])
    text, place, probability = capsys.readouterr().out.split("\t")
    assert text in context and place.startswith("document 0, characters ") and "probability 0." in probability
    predict.main(["--model", str(trained), "--data", files[3]])
    answers = json.loads(capsys.readouterr().out)
    predict.main(["--model", str(trained), "--data", files[3], "--format", "json"])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["id"]: line["answer"] for line in lines} == answers and len(answers) == 12
    model = reading.load(trained)
    groups = read([files[3]], model.limits).groups
    assert answers == {name: answer.text for name, answer in reading.predict(model, groups).items()}


def test_what_is_cut_is_said(trained, tmp_path, capsys):
    (tmp_path / "long.json").write_text(
        squad([("长江的号码是12。" * 100, [("1", "长江的号码", "12")])]), encoding="utf-8"
    )
    predict.main(["--model", str(trained), "--data", str(tmp_path / "long.json")])
    error = capsys.readouterr().err
    assert "1 passages cut at --max_passage_len of mrc.train: the rest of them is not read" in error
    assert "mrc.predict --question … --text … (or < file) reads all of a text" in error


def test_a_text_given_with_its_question_is_read_whole_and_so_are_six(trained, capsys):
    texts = ["没有。"] * 5 + ["没有什么。" * 300 + "长江的号码是12。"]
    predict.main(
        ["--model", str(trained), "--question", "长江的号码是多少", "--text", *texts, "--format", "json"]
    )  # fmt: skip
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert printed.err == "" and found["answer"] == texts[found["document"]][found["start"] : found["end"]]


def test_a_file_in_place_of_a_text_is_an_error_that_says_how(trained, tmp_path, capsys):
    (tmp_path / "p.txt").write_text("长江的号码是12。", encoding="utf-8")
    with pytest.raises(SystemExit) as stopped:
        predict.main(["--model", str(trained), "--question", "谁", "--text", "没有。", str(tmp_path / "p.txt")])
    error = capsys.readouterr().err
    assert stopped.value.code == 1 and re.search(
        "--text takes the text itself, and .*p.txt is a file; .*< .*p.txt", error
    )


def test_a_text_may_come_through_a_pipe(trained):
    command = ["-m", "mrc.predict", "--model", trained, "--question", "长江的号码是多少"]
    done = run_python(*command, input="长江的号码是12。\n黄河的号码是13。\n")
    assert done.returncode == 0 and done.stdout.count("\t") == 2, done.stderr


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--question", "", "--text", "长江"], "the question is empty"),
        (["--question", "长江？", "--text", "", " "], "there is no text that could answer"),
        (["--text", "长江"], "give either --question, with --text or standard input, or --data"),
        (["--question", "长江？", "--text", "江", "--max_answer_len", "0"], "must be a whole number of at least 1"),
        (["--data", "nowhere.json"], "no file matches 'nowhere.json'"),
        (["--data", "nowhere.json", "--text", "长江"], "--text goes with --question"),
    ],
)
def test_what_cannot_be_answered(trained, capsys, flags, message):
    with pytest.raises(SystemExit) as stopped:
        predict.main(["--model", str(trained), *flags])
    assert stopped.value.code == 1 and message in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--load_dir", str(GOLDEN / "lm_small")], "no checkpoint in it"),
        (["--hidden_size", "7", "--load_dir", "auto"], "step_00000018 has 6; leave it out to go on, or begin"),
        (["--max_passage_len", "3", "--load_dir", "auto"], "--max_passage_len is 3, but "),
        (["--pretrain_elmo_model_path", "", "--load_dir", "auto"], "--pretrain_elmo_model_path is '', but "),
        (["--dev_data", "nowhere"], "no file matches 'nowhere'"),
        (["--test_data", "nowhere"], "no file matches 'nowhere'"),
        (["--hidden_size", "999999999"], "GB: lower --word_emb_dim or --hidden_size"),
        (["--elmo_dict_dir", ""], "has no vocabulary in it: --elmo_dict_dir"),
        ([], "already holds checkpoints; resume them with --load_dir auto"),
        (["--elmo_vectors", "all"], "invalid choice: 'all'"),
    ],
)
def test_flags_that_cannot_be_used(files, trained, tmp_path, capsys, flags, message):
    folder = trained if not flags or "auto" in flags else tmp_path
    with pytest.raises(SystemExit) as stopped:
        mrc.train.main([*files, *SMALL, "--model_save_dir", str(folder), *flags])
    assert stopped.value.code == 1 and message in capsys.readouterr().err


def test_dev_questions_with_blank_answers_are_refused_before_training(files, tmp_path, capsys):
    text = squad(articles(5, 2))
    path = tmp_path / "blank.json"
    path.write_text(re.sub('"text": "[^"]*"', '"text": " "', text), encoding="utf-8")
    with pytest.raises(SystemExit):
        mrc.train.main([*files, *SMALL, "--dev_data", str(path), "--model_save_dir", str(tmp_path / "run")])
    assert "blank.json: no question has an answer to score against" in capsys.readouterr().err


def test_training_goes_on_with_the_same_questions_only(files, trained, capsys):
    flags = [*SMALL, "--model_save_dir", str(trained), "--load_dir", "auto", "--train_data", files[3]]
    with pytest.raises(SystemExit):
        mrc.train.main(flags)
    assert "the training lines are not those of" in capsys.readouterr().err


def test_a_tagger_is_refused(files, tmp_path, capsys):
    info = {"step": 1, "tags": ["n"], "model": {}}
    folder = checkpoint.save(tmp_path / "tagger", info, {"a": paddle.zeros([1])}, {}, {}, "")
    for main, flags in (
        (predict.main, ["--model", str(folder), "--question", "谁", "--text", "我"]),
        (mrc.train.main, [*files, *SMALL, "--model_save_dir", str(tmp_path / "run"), "--load_dir", str(folder)]),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(flags)
        assert stopped.value.code == 1 and "is a tagger" in capsys.readouterr().err


def test_another_deciding_score_is_not_compared_with_the_one_before(files, trained, tmp_path, capsys):
    shutil.copytree(trained, tmp_path / "run")
    flags = ["--score", "em", "--load_dir", "auto", "--max_epoch", "4", "--base_learning_rate", "1e-9"]
    mrc.train.main([*files, *SMALL, *flags, "--model_save_dir", str(tmp_path / "run")])
    assert "best so far" in capsys.readouterr().out
    assert checkpoint.best_of(tmp_path / "run").name.startswith("step_00000024")
