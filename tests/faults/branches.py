"""Runs that are stopped, taken back, continued with other flags, or started twice: nothing is lost or miscounted."""

import argparse
import json
import math
import os
import random
import signal
import subprocess
import sys
import time

from elmo_chinese import files
from elmo_chinese.storage import checkpoint, contents
from elmo_chinese.text.corpus import documents
from elmo_chinese.text.vocabulary import Vocabulary
from elmo_chinese.training import loop

import pytest
from conftest import LM, ROOT
from storage import run
from test_preprocess import tree
from test_train import SMALL, assert_same_run, last

import lac.train
import preprocess
import train
from reader import BidirectionalReader


@pytest.fixture
def stop_after(monkeypatch):
    """A function that has train.py asked to stop in the so-manieth step from now; None: never."""
    step, left = loop.do_step, [None]

    def counted(*arguments, **more):
        if left[0] is not None:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGTERM)
        return step(*arguments, **more)

    monkeypatch.setattr(loop, "do_step", counted)
    return lambda steps: left.__setitem__(0, steps)


# --- branches of a run, and which of them is the best ---

SEQUENCES, LENGTH = 12, 9


@pytest.fixture
def saved(monkeypatch):
    """The scores that checkpoints were saved with, in order."""
    save, scores = checkpoint.save, []

    def noted(*arguments):
        folder = save(*arguments)
        if arguments[-1]:
            scores.append(arguments[-1])
        return folder

    monkeypatch.setattr(checkpoint, "save", noted)
    return scores


def full_disk(*_):
    raise OSError(28, "No space left on device")


def perplexity_of(folder, text, cache):
    """Return the perplexity of a checkpoint's parameters, computed from them."""
    found, vocabulary = checkpoint.load(folder), Vocabulary(LM / "vocab.txt")
    options = argparse.Namespace(**found.info["flags"])
    lm = train.make_model(options, vocabulary)
    lm.set_state_dict(found.model)
    dev = BidirectionalReader(text, vocabulary, 8, options.num_steps, cache_dir=cache)
    return train.evaluate(lm, dev, vocabulary.unknown)["perplexity"]


def score_of(folder):
    return next(one.score for one in checkpoint.all_saved(folder.parent) if one.path == folder)


def check_best(root, before, scores, texts, cache):
    """Compare `best` with all scores on its text that are there, and with what its parameters are worth.

    Args:
        before: the score of the best one before the last command. scores: those saved since.
    """
    best = checkpoint.best_of(root)
    if best is None:
        assert not before and not scores and not any(one.score for one in checkpoint.all_saved(root))
        return
    contents.verify(best)
    score = score_of(best)
    assert checkpoint.resolve(root) == best and (not scores or score.text == scores[-1].text)
    there = [one.score for one in checkpoint.all_saved(root) if one.score]
    others = [other for other in (before, *scores, *there) if other and other.text == score.text]
    assert score.value >= max((other.value for other in others if not math.isnan(other.value)), default=-math.inf)
    (text,) = [path for path, corpus in texts.items() if corpus == score.text]
    assert perplexity_of(best, text, cache) == pytest.approx(1 / score.value, rel=1e-5)


def next_command(draw, root, texts):
    """Return flags that go on from somewhere, in some way."""
    folders = sorted(root.glob("step_*"))
    back = draw.choice(folders) if folders and draw.random() < 0.5 else None
    at = checkpoint.load(back).info if back else last(root).info if folders else {"progress": {"seen": 0}}
    epochs = at["progress"]["seen"] / 232 + draw.uniform(0.2, 0.9)
    flags = ["--load_dir", back or "auto", "--max_epoch", f"{epochs:.3f}", "--keep", draw.choice([1, 2, 3])]
    flags += ["--learning_rate", draw.choice([0.02, 0.2, 0.2, 20]), "--num_steps", draw.choice([5, 5, 9])]
    flags += ["--save_interval", draw.choice([2, 3, 5]), "--dev_interval", draw.choice([1, 2, 3])]
    return [*flags, "--test_path", draw.choice(texts[:1] * 3 + texts[1:])]


def test_best_is_the_best_that_is_still_there(tmp_path, capfd, monkeypatch, record_property, saved, stop_after):
    draw, tried, ends = random.Random(15), 0, {0: 0, 1: 0}
    other = tmp_path / "other.txt"
    other.write_text("".join((LM / "dev.txt").read_text(encoding="utf-8").splitlines(True)[::2]), encoding="utf-8")
    cache, texts = tmp_path / "cache", {}
    for path in (LM / "dev.txt", other):
        texts[path] = BidirectionalReader(path, Vocabulary(LM / "vocab.txt"), 8, 5, cache_dir=cache).corpus
    for number in range(SEQUENCES):
        root = tmp_path / f"run{number}"
        mine = [*SMALL, "--batch_size", "8", "--cache_dir", cache, "--para_save_dir", root]
        settled = True
        for _ in range(LENGTH):
            before = checkpoint.best_of(root) and score_of(checkpoint.best_of(root))
            saved.clear()
            stop_after(draw.choice([None, None, 1, 2, 5]))
            if draw.random() < 0.15:
                monkeypatch.setattr(checkpoint, "write_text", full_disk)
            code, printed, errors = run(capfd, *mine, *next_command(draw, root, list(texts)))
            monkeypatch.setattr(checkpoint, "write_text", files.write_text)
            assert code == 0 or "No space left on device" in errors or "; stopped. The checkpoints" in errors, errors
            # A checkpoint whose saving failed stands there until the next one that is evaluated.
            settled = (settled or bool(saved)) and "No space left on device" not in errors
            if settled:
                check_best(root, before, saved, texts, cache)
            ends[code] += 1
            tried += 1
    assert ends[0] > ends[1] > 0, ends
    fault = (
        "trained on, stopped, taken back to an earlier step, other flags, another held-out text, a full disk, at random"
    )
    record_property("fault", (fault, tried, "`best` is the best that is still there, and worth what is said of it"))


# --- flags that change on resume ---


def test_words_are_counted_whatever_the_steps(tmp_path, capfd, record_property, stop_after):
    draw, tried = random.Random(4), 0
    for number in range(6):
        root, epochs, before = tmp_path / f"run{number}", 0.0, {"step": 0, "tokens": 0}
        mine = [*SMALL, "--cache_dir", tmp_path / "cache", "--para_save_dir", root, "--load_dir", "auto"]
        for _ in range(6):
            epochs, num_steps = epochs + draw.uniform(0, 1.2), draw.choice([3, 5, 10])
            rows = draw.choice([("8", "1"), ("4", "2"), ("2", "4")])
            flags = ["--num_steps", num_steps, "--max_epoch", epochs, "--batch_size", rows[0], "--accumulate", rows[1]]
            stop_after(draw.choice([None, 1, 3]))
            code, printed, errors = run(capfd, *mine, *flags)
            assert code == 0, errors
            info = last(root).info
            assert info["tokens"] - before["tokens"] == (info["step"] - before["step"]) * 8 * num_steps
            words = int(printed.split(" words an epoch")[0].split()[-1].replace(",", ""))
            wanted = max(epochs * words, before["tokens"])
            if "asked to stop: saved" not in printed:
                assert wanted <= info["tokens"] < wanted + 8 * num_steps
            before = info
            tried += 1
    record_property("fault", ("other `--num_steps`, `--batch_size` on resume", tried, "epochs are counted in words"))


def test_sentences_are_counted_whatever_the_batch(tmp_path, capfd, record_property):
    text = (ROOT / "lac" / "data" / "train.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "lines.txt").write_text("".join(text[:40]), encoding="utf-8")
    mine = ["--train_data", tmp_path / "lines.txt", "--label_dict_path", ROOT / "lac" / "data" / "tag.dic"]
    mine += ["--word_emb_dim", "8", "--grnn_hidden_dim", "6", "--use_gpu", "false", "--load_dir", "auto"]
    draw, tried = random.Random(5), 0
    for number in range(4):
        root, epochs = tmp_path / f"run{number}", 0
        for _ in range(4):
            epochs += draw.choice([1, 2])
            flags = ["--batch_size", draw.choice([3, 9, 16, 40]), "--model_save_dir", root]
            for more in (["--num_iterations", draw.choice([1, 4])], ["--num_iterations", 0]):
                before = last(root).info["step"] if root.exists() else 0
                iterations = [more[0], more[1] and before + more[1]]
                lac.train.main([str(word) for word in [*mine, *flags, "--max_epoch", epochs, *iterations]])
                tried += 1
            assert last(root).info["epoch"] == epochs
    record_property("fault", ("other `--batch_size` on resume of lac.train", tried, "epochs are counted in sentences"))


def test_accumulate_is_kept_on_resume(tmp_path, capfd, record_property, stop_after):
    draw, tried = random.Random(6), 0
    for batch_size, accumulate in ((8, 1), (4, 2), (2, 4), (1, 8), (3, 2)):
        rows = ["--batch_size", batch_size, "--accumulate", accumulate]
        mine = [
            *SMALL,
            "--cache_dir",
            tmp_path / "cache",
            "--load_dir",
            "auto",
            "--max_epoch",
            "1.5",
            "--para_save_dir",
        ]
        stop_after(None)
        undisturbed, root = (tmp_path / f"{name}{batch_size}" for name in ("whole", "run"))
        assert run(capfd, *mine, undisturbed, *rows)[0] == 0
        printed = ""
        while "trained to step" not in printed:
            stop_after(draw.randint(1, 6))
            code, printed, errors = run(capfd, *mine, root, *([] if root.exists() else rows))
            assert code == 0, errors
            flags = last(root).info["flags"]
            assert (flags["batch_size"], flags["accumulate"]) == (batch_size, accumulate)
            tried += 1
        assert_same_run(undisturbed, root)
    outcome = "kept, and with the batch size the rows of a step; ends like an undisturbed run"
    record_property("fault", ("`--accumulate` is not given on resume", tried, outcome))


# --- preprocess.py ---


def test_two_preprocess_into_one_output(tmp_path, record_property):
    texts = [f"{place}有{number}条河。" for number in range(4000) for place in ("北京", "上海")]
    (tmp_path / "0.txt").write_text("\n\n".join(texts[::2]), encoding="utf-8")
    (tmp_path / "1.txt").write_text("\n\n".join(texts[1::2]), encoding="utf-8")
    flags, wholes = ["--shard_size", "2KB", "--dev_fraction", "0.1"], []
    for name in ("0", "1"):
        preprocess.main(
            ["sentences", "--input", str(tmp_path / f"{name}.txt"), "--output", str(tmp_path / name), *flags]
        )
        wholes.append(tree(tmp_path / name))
    tries, said = 6, {"another run is writing to": 0, "is there already; choose another --output": 0}
    for number in range(tries):
        output = tmp_path / f"out{number}"
        command = [sys.executable, "preprocess.py", "sentences", "--output", str(output), *flags, "--input"]
        both = []
        for name in ("0.txt", "1.txt"):
            both.append(subprocess.Popen([*command, str(tmp_path / name)], cwd=ROOT, stderr=subprocess.PIPE, text=True))
            time.sleep(0.1 * (number % 3))
        errors = [process.communicate()[1] for process in both]
        codes = [process.returncode for process in both]
        assert sorted(codes) == [0, 1], errors
        error = errors[codes.index(1)]
        assert error.count("error: ") == 1 and "Traceback" not in error, error
        said[next(message for message in said if message in error)] += 1
        assert tree(output) == wholes[codes.index(0)]
    outcome = "one of them writes its corpus whole, the other says that the output is taken"
    record_property("fault", ("two `preprocess.py sentences` into one `--output`", tries, outcome))


class Killed(BaseException):
    pass


def test_a_hundred_thousand_shards(tmp_path, monkeypatch, record_property):
    """The shards that an interrupted run has are moved to numbers around 100,000, the ones before it made up."""
    monkeypatch.setattr(documents, "CHUNK", 200)
    (tmp_path / "text.txt").write_text("\n\n".join(f"这是第{n}个文件。" for n in range(400)), encoding="utf-8")
    flags = ["sentences", "--input", str(tmp_path / "text.txt"), "--workers", "1", "--shard_size", "200", "--output"]
    preprocess.main([*flags, str(tmp_path / "whole")])
    whole, output = tmp_path / "whole" / "train", tmp_path / "out"
    replace, calls = os.replace, []

    def killed(source, target):
        calls.append(target)
        if len(calls) % 15 == 0:
            raise Killed
        replace(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(Killed):
        preprocess.main([*flags, str(output)])
    state = json.loads((output / ".unfinished" / "state.json").read_text(encoding="utf-8"))
    done = state["train"]["shards"]
    shift = 99_998 - done
    for path in sorted((output / "train").glob("part_*"), reverse=True):  # those under way have longer names
        replace(path, path.with_name(f"part_{int(path.name[5:10]) + shift:05d}{path.name[10:]}"))
    for number in range(shift):
        (output / "train" / f"part_{number:05d}.txt").write_text(f"{number}\n", encoding="utf-8")
    state["train"]["shards"] += shift
    (output / ".unfinished" / "state.json").write_text(json.dumps(state), encoding="utf-8")
    kills, finished = 1, False
    while not finished:
        try:
            preprocess.main([*flags, str(output)])
            finished = True
        except Killed:
            kills += 1
            assert kills < 50
    shards = sorted((output / "train").iterdir(), key=lambda path: int(path.stem[len("part_") :]))
    assert [path.name for path in shards] == [f"part_{n:05d}.txt" for n in range(len(shards))]
    assert len(shards) == shift + len(list(whole.iterdir())) > 100_000 and kills > 3 and done > 2
    for number, path in enumerate(shards):
        source = whole / f"part_{number - shift:05d}.txt"
        assert path.read_text("utf-8") == (f"{number}\n" if number < shift else source.read_text("utf-8"))
    record_property(
        "fault",
        ("`preprocess.py` killed while it writes shards 99,998 to 100,039", kills, "none is lost, also on resume"),
    )
