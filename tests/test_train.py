"""train.py: the original's five steps, and runs that are shared, stopped, killed and resumed."""

import itertools
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from elmo_chinese.command import UNEXPECTED
from elmo_chinese.storage import checkpoint, contents
from elmo_chinese.storage.pretrained import read_fluid_variable
from elmo_chinese.text.segmenter import segmenter_of
from elmo_chinese.text.vocabulary import Vocabulary, note_path
from elmo_chinese.training.metrics import read_metrics

import numpy as np
import paddle
import pytest
from conftest import LM, ROOT, largest_difference, run_python, tensors

import train
from benchmarks.steps import Steps
from bilm import init_pretraining_params, load_encoder
from reader import BidirectionalReader

# Everything that has a random part is switched on.
SMALL = [
    *("--train_path", str(LM / "train.txt"), "--test_path", str(LM / "dev.txt"), "--vocab_path", str(LM / "vocab.txt")),
    *("--embed_size", "8", "--hidden_size", "12", "--num_steps", "5", "--max_epoch", "2.5", "--shuffle", "true"),
    *("--sample_softmax", "--n_negative_samples_batch", "20", "--log_interval", "3", "--dev_interval", "10"),
    *("--use_gpu", "false", "--random_seed", "11", "--save_interval", "4", "--keep", "9"),
    *("--reset_states", "0.2"),
]


@pytest.fixture
def small(tmp_path):
    """Flags of a small run whose cache is in the test's own folder."""
    return [*SMALL, "--cache_dir", str(tmp_path / "cache")]


def start(arguments, processes=1, **more):
    """Start train.py in a process of its own, or through the launcher."""
    launch = ["-m", "paddle.distributed.launch", "--nproc_per_node", str(processes), "--log_level", "WARNING"]
    launch += ["--log_dir", str(more.pop("log_dir"))] if processes > 1 else []
    return subprocess.Popen(
        [sys.executable, *(launch if processes > 1 else []), "train.py", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "GLOG_minloglevel": "2"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        **more,
    )


def finish(process, code=0):
    output = process.communicate(timeout=120)[0]
    assert process.returncode == code, output
    return output


def wait_for(condition, process):
    deadline = time.time() + 60
    while not condition():
        assert process.poll() is None and time.time() < deadline, process.communicate()[0]
        time.sleep(0.01)


def figures(root):
    """Return the records of a run without what depends on the clock."""
    records = read_metrics(root / "log" / "metrics.jsonl")
    return [{k: v for k, v in record.items() if k not in ("time", "tokens_per_second")} for record in records]


def last(root):
    return checkpoint.load_newest(root)[0]


def assert_same_run(first, second):
    """Same metrics and same parameters, optimizer and states, to the last bit."""
    assert figures(first) == figures(second)
    a, b = last(first), last(second)
    assert a.info["step"] == b.info["step"]
    for mine, theirs in ((a.model, b.model), (a.optimizer, b.optimizer), (a.state, b.state)):
        assert mine.keys() == theirs.keys()
        assert all(np.array_equal(mine[name], theirs[name]) for name in mine)


def golden_steps(lm, count, world=1):
    """Do the golden training steps; return losses and gradient norms."""
    golden = np.load(LM / "train.npz")
    optimizer = train.make_optimizer("adagrad", 0.2, lm.parameters())
    job, losses, norms = Steps(lm, optimizer), [], []
    for number in range(1, count + 1):
        step = {key.split("/")[1]: golden[key] for key in golden.files if key.startswith(f"step{number}/")}
        job.states = tuple(tensors(step, "init_hiddens", "init_cells"))
        batch = [step[name] for name in ("x", "y", "x_r", "y_r")]
        loss, norm = job.step(batch)
        assert largest_difference(job.states[0].numpy(), step["last_hidden"]) < 1e-5
        assert largest_difference(job.states[1].numpy(), step["last_cell"]) < 1e-5
        losses.append(loss)
        norms.append(norm)
    return golden, optimizer, losses, norms


@pytest.mark.parametrize("count", [1, 5])
def test_training_steps_equal_golden(golden_lm, count):
    golden, optimizer, losses, norms = golden_steps(golden_lm, count)
    assert largest_difference(losses, golden["losses"][:count, 0]) < 1e-5
    clipped = np.minimum(norms, 10.0)
    assert largest_difference(clipped, golden["clipped_grad_norm"][:count]) < 1e-4 and max(norms) > 10
    moments = contents.optimizer_arrays(optimizer, golden_lm)
    paths = {id(parameter): path for path, parameter in golden_lm.named_parameters()}
    for name, parameter in golden_lm.fluid_parameters().items():
        assert largest_difference(parameter.numpy(), golden[f"after{count}/{name}"]) < 1e-5
        moment = moments[paths[id(parameter)] + "/moment_0"].numpy()
        assert largest_difference(moment, golden[f"after{count}/{name}_moment_0"]) < 1e-5


class FirstBatches(BidirectionalReader):
    """The original evaluated the full batches of its golden file; so does this."""

    def single_pass(self):
        self._rewind()
        for batch in itertools.islice(self, 59):
            yield batch, np.ones(batch[0].shape, dtype=bool)


def test_dev_perplexity_equals_golden(golden_lm, tmp_path):
    golden = golden_steps(golden_lm, 5)[0]
    dev = FirstBatches(LM / "dev.txt", Vocabulary(LM / "vocab.txt"), 4, 5, cache_dir=tmp_path)
    found = train.evaluate(golden_lm, dev, unknown=2)
    assert found["perplexity"] == pytest.approx(float(golden["dev_ppl"]), rel=1e-5)
    assert found["tokens"] == 59 * 20


def test_perplexity_is_over_every_word_once_whatever_the_batch(golden_lm, tmp_path):
    vocabulary = Vocabulary(LM / "vocab.txt")
    dev = BidirectionalReader(LM / "dev.txt", vocabulary, 3, 7, cache_dir=tmp_path)
    found = train.evaluate(golden_lm, dev, unknown=vocabulary.unknown)
    words = [line.split() for line in (LM / "dev.txt").read_text(encoding="utf-8").splitlines()]
    assert found["tokens"] == sum(map(len, words)) + len(words)
    unknown = sum(word not in vocabulary.ids or word == "<UNK>" for line in words for word in line)
    assert found["unknown_tokens"] == unknown > 0
    # one row: the whole text as one stream, by hand
    single = BidirectionalReader(LM / "dev.txt", vocabulary, 1, found["tokens"], cache_dir=tmp_path)
    (batch, _), *rest = single.single_pass()
    forward, backward, _ = golden_lm(*map(paddle.to_tensor, batch))
    by_hand = train.evaluate(golden_lm, single, unknown=2)
    assert not rest and by_hand["perplexity_forward"] == pytest.approx(math.exp(float(forward.mean())), rel=1e-5)
    both = float(forward.mean() + backward.mean()) / 2
    assert by_hand["perplexity"] == pytest.approx(math.exp(both), rel=1e-5)


def test_accumulating_equals_a_larger_batch(small, tmp_path):
    train.main([*small, "--batch_size", "8", "--para_save_dir", str(tmp_path / "whole")])
    train.main([*small, "--batch_size", "4", "--accumulate", "2", "--para_save_dir", str(tmp_path / "parts")])
    assert_close_runs(tmp_path / "whole", tmp_path / "parts")


def test_a_linear_schedule_falls_to_zero_over_the_words_of_the_run(small, tmp_path):
    run = [*small, "--batch_size", "8", "--para_save_dir", str(tmp_path), "--log_interval", "1", "--load_dir", "auto"]
    run += ["--lr_schedule", "linear", "--learning_rate", "0.4"]
    train.main([*run, "--max_epoch", "1"])
    steps = last(tmp_path).info["step"]
    rates = [record["learning_rate"] for record in figures(tmp_path) if record["kind"] == "train"]
    assert rates == pytest.approx([0.4 * (1 - step / steps) for step in range(steps)])
    train.main([*run, "--max_epoch", "2"])  # a longer run: its rate goes by all of its words
    steps, so_far = last(tmp_path).info["step"], steps
    rates = [record["learning_rate"] for record in figures(tmp_path) if record["kind"] == "train"]
    assert rates[so_far:] == pytest.approx([0.4 * (1 - step / steps) for step in range(so_far, steps)])


def assert_close_runs(first, second):
    """Same metrics and parameters but for rounding."""
    mine, theirs = figures(first), figures(second)
    assert len(mine) == len(theirs) > 5
    for a, b in zip(mine, theirs):
        assert a.pop("kind") == b.pop("kind") and a == pytest.approx(b, rel=2e-4)
    a, b = last(first), last(second)
    assert a.model.keys() == b.model.keys()
    assert all(largest_difference(a.model[name], b.model[name]) < 2e-4 for name in a.model)


@pytest.mark.filterwarnings("ignore:The program will return to single-card operation")
def test_gradients_of_several_parts_are_averaged_over_processes_once(golden_lm, monkeypatch):
    """The reducer of `paddle.DataParallel` is armed in the forward pass, by `grad_need_sync`."""
    armed = []

    class Spy(paddle.DataParallel):
        def forward(self, *inputs):
            armed.append(self.grad_need_sync)
            return super().forward(*inputs)

    monkeypatch.setattr(train, "share_row_gradients", lambda parameters: None)
    rng = np.random.default_rng(0)
    job = Steps(golden_lm, paddle.optimizer.SGD(0.0, parameters=golden_lm.parameters()), accumulate=3)
    job.model = Spy(golden_lm)
    job.loss([rng.integers(0, 60, (6, 4)) for _ in range(4)], None, 1)
    assert armed == [False, False, True]


def test_two_processes_equal_one_and_can_be_resumed_by_one(small, tmp_path):
    train.main([*small, "--batch_size", "8", "--para_save_dir", str(tmp_path / "one")])
    shared = [*small, "--batch_size", "4", "--para_save_dir", tmp_path / "two"]
    finish(start(shared, processes=2, log_dir=tmp_path / "launch"))
    assert_close_runs(tmp_path / "one", tmp_path / "two")
    # back to the middle of the two-process run, and on with one process
    checkpoint.write_text(tmp_path / "two" / "latest", "step_00000008\n")
    train.main([*small, "--para_save_dir", str(tmp_path / "two"), "--load_dir", "auto"])
    assert_close_runs(tmp_path / "one", tmp_path / "two")


@pytest.mark.parametrize("processes", [1, 2])
def test_killed_and_resumed_equals_undisturbed_to_the_bit(small, tmp_path, processes):
    def command(name):
        rows = ["--batch_size", 8 // processes, "--load_dir", "auto", "--para_save_dir", tmp_path / name]
        rows += ["--lr_schedule", "linear"]
        return dict(arguments=[*small, *rows, "--max_epoch", "8"], processes=processes, log_dir=tmp_path / "launch")

    def go(name, **more):
        options = command(name)
        if processes == 1:
            options.pop("log_dir")
        return start(**options, **more)

    finish(go("whole"))
    killed = go("killed", start_new_session=True)
    wait_for(lambda: checkpoint.step_folder(tmp_path / "killed", 8).exists(), killed)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()  # with the launcher, which is what was killed of two, end its processes
    assert last(tmp_path / "killed").info["step"] < last(tmp_path / "whole").info["step"]
    printed = finish(go("killed"))
    assert re.search(r"resuming from .*step_\d+: step \d+, epoch [\d.]+\n", printed) and "going on in file 1" in printed
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_saves_says_how_to_go_on_and_loses_nothing(small, tmp_path, number):
    arguments = [*small, "--batch_size", "8", "--save_interval", "1000", "--max_epoch", "8", "--load_dir", "auto"]
    whole = start([*arguments, "--para_save_dir", tmp_path / "whole"])
    log = tmp_path / "stopped" / "log" / "metrics.jsonl"
    process = start([*arguments, "--para_save_dir", tmp_path / "stopped"])
    wait_for(lambda: log.exists() and log.stat().st_size > 0, process)
    process.send_signal(number)
    assert re.search(r"asked to stop: saved step \d+; resume with .*--load_dir auto", finish(process))
    finish(start([*arguments, "--para_save_dir", tmp_path / "stopped"]))
    finish(whole)
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")


@pytest.mark.parametrize("interval", ["5", "1000"])  # inside the run, and at its last step
@pytest.mark.parametrize("batches", [0, 2])
def test_a_stop_is_heard_within_an_evaluation_and_loses_nothing(
    small, tmp_path, monkeypatch, capsys, interval, batches
):
    run = [*small, "--batch_size", "8", "--max_epoch", "1", "--dev_interval", interval, "--para_save_dir"]
    train.main([*run, str(tmp_path / "whole")])
    whole, stopped = train.evaluate, tmp_path / "stopped"

    def asked_within(model, reader, unknown, asked):
        passed = iter(range(1000))
        monkeypatch.setattr(train, "evaluate", whole)
        return whole(model, reader, unknown, lambda: next(passed) >= batches)

    monkeypatch.setattr(train, "evaluate", asked_within)
    train.main([*run, str(stopped)])
    assert "asked to stop: saved step" in capsys.readouterr().out
    assert last(stopped).info["dev"] is None and not [one for one in figures(stopped) if one["kind"] == "dev"]
    train.main([*run, str(stopped), "--load_dir", "auto"])
    assert_same_run(tmp_path / "whole", stopped)


def test_an_evaluation_that_was_due_is_not_missed_where_the_text_is_gone(small, tmp_path, monkeypatch):
    run = [*small, "--batch_size", "8", "--max_epoch", "1", "--para_save_dir", str(tmp_path / "run")]
    with monkeypatch.context() as patch:
        patch.setattr(train, "evaluate", lambda *_: None)  # asked to stop within it
        train.main(run)
    assert last(tmp_path / "run").info["progress"]["evaluation_due"]
    train.main([*run, "--load_dir", "auto", "--test_path", "", "--max_epoch", "1.2"])
    assert last(tmp_path / "run").info["step"] > 8


def test_the_best_is_sought_anew_on_another_held_out_text(finished, monkeypatch):
    run, folder = finished
    worse = dict(perplexity=1e6, perplexity_forward=1e6, perplexity_backward=1e6, tokens=1, unknown_tokens=0)
    monkeypatch.setattr(train, "evaluate", lambda *_: dict(worse))
    more = ["--load_dir", "auto", "--max_epoch", "1.5", "--dev_interval", "1", "--save_interval", "1000"]
    train.main([*run, *more, "--test_path", str(LM / "train.txt")])
    assert checkpoint.best_of(folder).name.startswith("step_00000009")  # and none of the other text's


@pytest.mark.parametrize("device, rows, sparse", [("cpu", 59, True), ("gpu:0", 60, True), ("gpu:0", 59, False)])
def test_gradients_have_no_more_rows_than_a_gpu_can_update(monkeypatch, device, rows, sparse):
    monkeypatch.setattr(train, "MOST_ROWS", rows)
    options, _ = train.make_parser("").parse([*SMALL, "--n_negative_samples_batch", "20"])
    monkeypatch.setattr(paddle.device, "get_device", lambda: device)
    assert train.make_model(options, Vocabulary(LM / "vocab.txt")).lstm.sparse == sparse


def test_resuming_takes_saved_flags_and_the_command_line_wins(small, tmp_path, capsys):
    run = ["--para_save_dir", str(tmp_path / "run")]
    train.main([*small, *run, "--batch_size", "8", "--max_epoch", "1"])
    capsys.readouterr()
    train.main([*run, "--load_dir", "auto", "--max_epoch", "2", "--learning_rate", "0.05", "--use_gpu", "false"])
    printed = capsys.readouterr().out
    assert "max_epoch 1.0 → 2.0" in printed and "learning_rate 0.2 → 0.05" in printed
    train.main([*run, "--load_dir", "auto", "--max_epoch", "1"])  # less than it had
    assert "and a larger --max_epoch than 2\n" in capsys.readouterr().out
    records = figures(tmp_path / "run")
    assert {record["learning_rate"] for record in records if record["kind"] == "train"} == {0.2, 0.05}
    assert last(tmp_path / "run").info["flags"]["num_steps"] == 5


def test_a_vocabulary_of_other_text_is_said_at_the_start(small, tmp_path, capsys):
    (tmp_path / "other.txt").write_text("<S>\n</S>\n<UNK>\n" + "".join(f"w{n}\n" for n in range(30)), encoding="utf-8")
    arguments = [*small, "--batch_size", "8", "--max_epoch", "0.1", "--para_save_dir", str(tmp_path / "run")]
    train.main([*arguments, "--vocab_path", str(tmp_path / "other.txt"), "--cache_dir", str(tmp_path / "cache")])
    assert re.search(r"\(100\.00 %\).* of other text\?", capsys.readouterr().out)


def test_a_terminal_without_chinese_ends_no_program():
    for encoding in ("latin-1", "ascii"):
        environment = {**os.environ, "PYTHONIOENCODING": encoding}
        done = run_python("preprocess.py", "sentences", "--input", "没有", "--output", "x", env=environment)
        assert done.returncode == 1 and "\\u6ca1\\u6709" in done.stderr and "Traceback" not in done.stderr


def zero_state_ratio_of_a_run(tmp_path, seed, share):
    """Train 60 steps on the words of data/ that are frequent, badly; return the `zero_state_ratio` at the end."""
    words = (ROOT / "data" / "vocabulary.txt").read_text(encoding="utf-8").split("\n")[:300]
    (tmp_path / "frequent.txt").write_text("\n".join(words), encoding="utf-8")
    folder = tmp_path / f"{seed}_{share}"
    text = ["--train_path", str(ROOT / "data" / "train"), "--test_path", str(ROOT / "data" / "dev")]
    sizes = ["--embed_size", "32", "--hidden_size", "256", "--batch_size", "8", "--num_steps", "10"]
    recipe = ["--optim", "adam", "--learning_rate", "0.01", "--dropout", "0.5", "--max_epoch", "0.195"]
    place = ["--cache_dir", str(tmp_path / "cache"), "--para_save_dir", str(folder), "--use_gpu", "false"]
    one = ["--vocab_path", str(tmp_path / "frequent.txt"), "--random_seed", str(seed), "--reset_states", str(share)]
    train.main([*text, *sizes, *recipe, *place, *one])
    return figures(folder)[-1]["zero_state_ratio"]


def test_a_network_that_saw_zero_states_in_training_knows_the_text_from_them(tmp_path, capsys):
    # Carried for ever, states leave half of the seeds with a network that is 10^4 and more times worse from zero.
    assert any(zero_state_ratio_of_a_run(tmp_path, seed, 0) > 10 for seed in range(8))
    assert "warning: from a zero LSTM state" in capsys.readouterr().out
    assert all(zero_state_ratio_of_a_run(tmp_path, seed, 0.1) < 2 for seed in range(3))
    assert "warning" not in capsys.readouterr().out


def test_weights_only_starts_a_new_run(small, tmp_path, capsys):
    arguments = [*small, "--hidden_size", "16", "--para_save_dir", str(tmp_path / "run"), "--batch_size", "8"]
    train.main([*arguments, "--load_pretraining_params", str(LM / "checkpoint"), "--learning_rate", "1e-9"])
    assert "loaded 19 parameters" in capsys.readouterr().out
    found = last(tmp_path / "run")
    golden = read_fluid_variable(LM / "checkpoint" / "embedding_para")
    assert largest_difference(found.model["lstm.embedding"], golden) < 1e-6
    assert figures(tmp_path / "run")[0]["step"] == 3


def test_words_keep_their_rows_under_another_vocabulary(finished, small, tmp_path, capsys):
    before = last(finished[1])
    words = Vocabulary(before.path / "vocabulary.txt").words
    other = ["新词", *reversed(words[: len(words) // 2]), *words[len(words) // 2 + 2 :], "又一个"]
    (tmp_path / "other.txt").write_text("".join(word + "\n" for word in other), encoding="utf-8")
    run = [*small, "--batch_size", "8", "--vocab_path", str(tmp_path / "other.txt"), "--learning_rate", "1e-9"]
    weights = ["--load_pretraining_params", str(before.path), "--max_epoch", "0.1"]
    train.main([*run, *weights, "--para_save_dir", str(tmp_path / "new")])
    assert "2 new ones start fresh (新词, 又一个), 2 of its words are not in" in capsys.readouterr().out
    after = last(tmp_path / "new")
    for name in ("lstm.embedding", "softmax_weight", "softmax_bias"):
        rows = [words.index(word) for word in other[1:-1]]
        assert largest_difference(after.model[name][1:-1], before.model[name][rows]) < 1e-6, name
    assert np.abs(after.model["lstm.embedding"][0]).max() > 0
    # A Fluid folder has no vocabulary: line by line, or by the one that is given.
    fluid = ["--load_pretraining_params", str(LM / "checkpoint"), "--hidden_size", "16", "--max_epoch", "0.1"]
    of_fluid = ["--pretraining_vocab_path", str(LM / "vocab.txt"), "--para_save_dir", str(tmp_path / "fluid")]
    train.main([*run, *fluid, *of_fluid])
    golden = read_fluid_variable(LM / "checkpoint" / "embedding_para")
    assert largest_difference(last(tmp_path / "fluid").model["lstm.embedding"][1:-1], golden[rows]) < 1e-6
    wrong = ["--pretraining_vocab_path", str(tmp_path / "other.txt"), "--para_save_dir", str(tmp_path / "no")]
    with pytest.raises(SystemExit):
        train.main([*run, *weights, *wrong])
    assert "other.txt is not the vocabulary of" in capsys.readouterr().err


def test_a_checkpoint_knows_how_its_text_was_cut(small, tmp_path):
    words = Vocabulary(LM / "vocab.txt").words
    path, run = tmp_path / "v.txt", tmp_path / "run"
    path.write_text("".join(word + "\n" for word in words), encoding="utf-8")
    note = {"kind": "characters", "dictionary": "", "width": "half"}
    note_path(path).write_text(json.dumps(note), encoding="utf-8")
    arguments = [*small, "--batch_size", "8", "--vocab_path", str(path), "--para_save_dir", str(run)]
    train.main([*arguments, "--max_epoch", "0.1"])
    assert load_encoder(run)[1].note == note
    note_path(path).unlink()
    train.main([*arguments, "--max_epoch", "0.5", "--load_dir", "auto"])
    vocabulary = load_encoder(run)[1]
    assert vocabulary.note == note and segmenter_of(vocabulary).cut("ＡＢ　中国") == ["A", "B", "中", "国"]


def test_a_run_from_weights_is_resumed_by_the_same_command(finished, small, tmp_path, capsys):
    new = tmp_path / "new"
    run = [*small, "--batch_size", "8", "--para_save_dir", str(new), "--load_dir", "auto"]
    weights = ["--load_pretraining_params", str(finished[1])]
    train.main([*run, *weights, "--max_epoch", "0.5"])
    shutil.rmtree(finished[1])  # read once, at the start
    train.main([*run, "--max_epoch", "0.75"])
    capsys.readouterr()
    train.main([*run, *weights, "--max_epoch", "1"])
    assert f"resuming from {new}" in capsys.readouterr().out
    assert last(new).info["flags"]["load_pretraining_params"] == str(finished[1])


@pytest.mark.parametrize("name", ["adam", "sgd", "rmsprop", "rprop"])
def test_other_optimizers_train_and_resume(small, tmp_path, name):
    arguments = [*small, "--optim", name, "--learning_rate", "0.003", "--batch_size", "8"]
    train.main([*arguments, "--para_save_dir", str(tmp_path / "whole")])
    run = [*arguments, "--para_save_dir", str(tmp_path / "run")]
    train.main(run)
    checkpoint.write_text(tmp_path / "run" / "latest", "step_00000008\n")
    train.main([*run, "--load_dir", "auto"])
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_not_finite_stops_at_once_and_keeps_the_good_checkpoint(small, tmp_path, capsys, monkeypatch):
    arguments = [*small, "--batch_size", "8", "--para_save_dir", str(tmp_path / "run")]
    loss = train.Pretraining.loss

    def poisoned(job, batch, states, step):
        if step == 10:
            job.network.softmax_bias.set_value(job.network.softmax_bias + float("nan"))
        return loss(job, batch, states, step)

    monkeypatch.setattr(train.Pretraining, "loss", poisoned)
    with pytest.raises(SystemExit) as stopped:
        train.main(arguments)
    error = capsys.readouterr().err
    assert stopped.value.code == 1
    assert "step 10: loss is nan, gradient norm is nan" in error and "Traceback" not in error
    found = last(tmp_path / "run")
    assert found.info["step"] == 8 and all(np.isfinite(array).all() for array in found.model.values())


def test_a_process_that_stands_still_ends_the_run_so_that_it_can_be_started_again(small, tmp_path):
    flags = [*small, "--batch_size", "4", "--max_epoch", "9999", "--dev_interval", "99999", "--step_timeout", "2"]
    flags += ["--save_interval", "20", "--keep", "2", "--para_save_dir", tmp_path / "run"]
    launcher = start(flags, processes=2, log_dir=tmp_path / "launch")
    wait_for(lambda: checkpoint.step_folder(tmp_path / "run", 20).exists(), launcher)
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGSTOP)
    finish(launcher, code=UNEXPECTED)  # of the other one; the launcher kills the stopped one
    said = [path.read_text(encoding="utf-8") for path in (tmp_path / "launch").glob("workerlog.*")]
    assert any("error: no step was made for 2 s" in text for text in said)
    assert last(tmp_path / "run").info["step"] >= 20


def test_all_checkpoints_can_be_kept_and_what_is_deleted_is_said(small, tmp_path, capsys):
    run = [*small, "--batch_size", "8", "--max_epoch", "2", "--para_save_dir", str(tmp_path / "run")]
    train.main([*run, "--keep", "all"])
    assert f"kept        all checkpoints in {tmp_path / 'run'}\n" in capsys.readouterr().out
    steps = [4, 8, 10, 12, 16]  # 10: the best of the evaluations
    assert sorted(int(path.name[5:]) for path in (tmp_path / "run").glob("step_*")) == steps
    train.main([*run, "--load_dir", "auto", "--keep", "2", "--max_epoch", "2.5"])
    assert "kept        the newest 2 checkpoints in " in capsys.readouterr().out
    assert len(list((tmp_path / "run").glob("step_*"))) <= 3


def test_the_end_of_a_run_without_a_dev_text_shows_no_perplexity_of_before(small, tmp_path, capsys):
    run = [*small, "--batch_size", "8", "--max_epoch", "1", "--para_save_dir", str(tmp_path / "run")]
    train.main(run)
    assert "\ndev        perplexity" in capsys.readouterr().out
    train.main([*run, "--load_dir", "auto", "--max_epoch", "1.5", "--test_path", ""])
    assert "perplexity" not in capsys.readouterr().out


def test_full_disk_while_saving_is_one_clear_line(small, tmp_path, capsys, monkeypatch):
    save = checkpoint.paddle.save

    def full(content, path):
        if "step_00000008" in path:
            raise OSError(28, "No space left on device")
        save(content, path)

    monkeypatch.setattr(checkpoint.paddle, "save", full)
    with pytest.raises(SystemExit) as stopped:
        train.main([*small, "--batch_size", "8", "--para_save_dir", str(tmp_path / "run")])
    assert stopped.value.code == 1 and "No space left on device; older ones are intact" in capsys.readouterr().err
    assert last(tmp_path / "run").info["step"] == 4


def test_visualdl_shows_what_metrics_jsonl_holds_after_a_resume_too(small, tmp_path):
    from visualdl import LogReader

    run = [*small, "--batch_size", "8", "--para_save_dir", str(tmp_path / "run")]
    train.main(run)
    checkpoint.write_text(tmp_path / "run" / "latest", "step_00000008\n")
    train.main([*run, "--load_dir", "auto"])
    folder = tmp_path / "run" / "log"
    (path,) = folder.glob("vdlrecords.*.log")
    plotted = LogReader(file_path=str(path))
    records = read_metrics(folder / "metrics.jsonl")
    for tag in ("train/sampled_loss", "train/grad_norm", "train/learning_rate", "train/tokens_per_second",
                "dev/perplexity", "dev/perplexity_forward", "dev/perplexity_backward"):  # fmt: skip
        kind, name = tag.split("/")
        expected = [(record["step"], record[name]) for record in records if record["kind"] == kind]
        found = [(point.id, point.value) for point in plotted.get_data("scalar", tag)]
        assert [step for step, _ in found] == [step for step, _ in expected]
        assert [value for _, value in found] == pytest.approx([value for _, value in expected])


def test_sampled_loss_is_never_called_perplexity(small, tmp_path, capsys):
    train.main([*small, "--batch_size", "8", "--para_save_dir", str(tmp_path / "run")])
    lines = [line for line in capsys.readouterr().out.splitlines() if "grad_norm" in line]
    assert lines and all("sampled_loss" in line and "perplexity" not in line for line in lines)
    assert all("perplexity" not in r and "loss" not in r for r in figures(tmp_path / "run") if r["kind"] == "train")


def test_second_start_of_a_finished_run_trains_nothing(small, tmp_path, capsys):
    run = [*small, "--batch_size", "8", "--para_save_dir", str(tmp_path / "run"), "--load_dir", "auto"]
    train.main(run)
    before = figures(tmp_path / "run")
    capsys.readouterr()
    train.main(run)
    printed = capsys.readouterr().out
    assert "grad_norm" not in printed and "dev        perplexity" in printed and figures(tmp_path / "run") == before


def test_counted_words_decide_the_steps_and_a_wrong_override_is_said(small, tmp_path, capsys):
    run = [*small, "--batch_size", "8", "--max_epoch", "1"]
    train.main([*run, "--para_save_dir", str(tmp_path / "a"), "--all_train_tokens", "640"])
    warning = "warning: --all_train_tokens 640, but 279 words were counted, 319 with the ends of sentences"
    assert warning in capsys.readouterr().out
    assert last(tmp_path / "a").info["step"] == 16
    train.main([*run, "--para_save_dir", str(tmp_path / "b")])
    assert last(tmp_path / "b").info["step"] == 8  # 319 words / (8 rows × 5 words), rounded up
    train.main([*run, "--para_save_dir", str(tmp_path / "c"), "--all_train_tokens", "280"])  # as the original counts
    assert "warning" not in capsys.readouterr().out


def test_retired_flags_are_accepted_with_what_replaced_them(small, tmp_path, capsys):
    run = [*small, "--batch_size", "8", "--max_epoch", "1", "--para_save_dir", str(tmp_path / "run")]
    train.main([*run, "--local", "True", "--update_method", "nccl2", "--enable_ce"])
    printed = capsys.readouterr().out
    for name in ("--local", "--update_method", "--enable_ce"):
        assert printed.count(f"{name} has no effect: ") == 1


BAD_FILES = {
    "empty.txt": b"",
    "gbk.txt": "ok\n中文".encode("gb18030"),
    "bare.txt": b"a\nb\n",
    "twice.txt": b"<S>\n</S>\n<UNK>\na\na\n",
    "tiny.txt": "的\n".encode(),
    "file": b"not a folder",
}
# name → a flag that replaces the good one (HERE is the folder of the files above), and what the message must say
BAD_INPUTS = {
    "no train file": ("--train_path", "nowhere/*.txt", "no file matches 'nowhere/.*' .looked from /"),
    "no dev file": ("--test_path", "nowhere", "no file matches 'nowhere'"),
    "no vocabulary file": ("--vocab_path", "nowhere", "cannot read nowhere: No such file"),
    "no train path": ("--train_path", "", "--train_path is missing"),
    "no vocabulary path": ("--vocab_path", "", "--vocab_path is missing"),
    "empty": ("--train_path", "HERE/empty.txt", "empty.txt is empty"),
    "not UTF-8": ("--train_path", "HERE/gbk.txt", "gbk.txt: not UTF-8: line 2, byte 3"),
    "no specials": ("--vocab_path", "HERE/bare.txt", "bare.txt: no line <S>"),
    "duplicate": ("--vocab_path", "HERE/twice.txt", "twice.txt: 'a' stands on line 4 and again on line 5"),
    "small corpus": ("--train_path", "HERE/tiny.txt", "has 2 words, less than one batch of 8 rows × 5"),
    "negatives": ("--n_negative_samples_batch", "61", "61 is more than the 60 words"),
    "projected words": ("--visualdl_embeddings", "58", "58 is more than the 57 words of .*vocab.txt besides <S>"),
    "fewer than no words": ("--visualdl_embeddings", "-1", "must be a whole number of at least 0, got '-1'"),
    "unwritable": ("--para_save_dir", "HERE/file/run", "cannot write to .*file/run"),
    "unknown flag": ("--hiden_size", "3", "unrecognized arguments: --hiden_size 3"),
    "zero": ("--hidden_size", "0", "--hidden_size: must be a whole number of at least 1, got '0'"),
    "negative": ("--batch_size", "-4", "--batch_size: must be a whole number of at least 1, got '-4'"),
    "seed beyond int64": (
        "--random_seed",
        str(2**63),
        "--random_seed: must be below 2\\^63, got '9223372",
    ),
    "sizes beyond memory": (
        "--hidden_size",
        "999999999",
        "GB of memory, and there are .*: lower --hidden_size",
    ),
    "empty folder": ("--para_save_dir", "", "--para_save_dir is empty"),
    "no number": ("--learning_rate", "fast", "--learning_rate: must be a number, got 'fast'"),
    "dropout": ("--dropout", "1", "--dropout: must be at least 0 and below 1"),
    "optimizer": ("--optim", "magic", "invalid choice: 'magic'"),
    "no GPU": ("--use_gpu", "true", "Paddle sees no GPU"),
    "no checkpoint": ("--load_dir", "nowhere", "nowhere: no such checkpoint folder"),
    "no weights": ("--load_pretraining_params", "nowhere", "nowhere: no such folder"),
    "weights of other sizes": ("--load_pretraining_params", str(LM / "checkpoint"), "lstmp_0.w_0: expected shape"),
}


@pytest.mark.parametrize("name", BAD_INPUTS)
def test_bad_input_is_a_clear_error(small, tmp_path, capsys, name):
    for file, content in BAD_FILES.items():
        (tmp_path / file).write_bytes(content)
    flag, value, message = BAD_INPUTS[name]
    run = tmp_path / "run"
    arguments = [*small, "--batch_size", "8", "--para_save_dir", str(run), flag, value.replace("HERE", str(tmp_path))]
    with pytest.raises(SystemExit) as stopped:
        train.main(arguments)
    error = capsys.readouterr().err
    assert stopped.value.code == 1 and ": error: " in error.splitlines()[0]
    assert re.search(message, error), error
    assert "Traceback" not in error and not list(run.glob("step_*"))


@pytest.fixture
def finished(small, tmp_path):
    """Flags and folder of a run with checkpoints at steps 4 and 8."""
    run = [*small, "--batch_size", "8", "--max_epoch", "1", "--para_save_dir", str(tmp_path / "run")]
    train.main(run)
    return run, tmp_path / "run"


@pytest.mark.parametrize(
    "flags, message",
    [
        ([], "already holds checkpoints; resume them with --load_dir auto, or choose another"),
        (["--load_dir", "auto", "--hidden_size", "16"], "--hidden_size is 16, but "),
        (["--load_dir", "auto", "--optim", "adam"], "--optim is 'adam', but "),
        (["--load_dir", "auto", "--batch_size", "6"], "global batch of 8 rows, now it is 6"),
        (["--load_dir", "auto", "--accumulate", "2", "--batch_size", "8"], "global batch of 8 rows, now it is 16"),
        (["--load_dir", "auto", "--random_seed", "12"], "shuffle and seed were"),
        (["--load_dir", "auto", "--train_path", str(LM / "dev.txt")], "training text or the vocabulary is not the one"),
        (["--load_dir", "auto", "--load_pretraining_params", "x"], "--load_pretraining_params is 'x', but "),
    ],
)
def test_what_does_not_fit_the_checkpoint_is_named(finished, capsys, flags, message):
    run, folder = finished
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and "log" not in path.parts}
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        train.main([*run, *flags])
    error = capsys.readouterr().err
    assert stopped.value.code == 1 and re.search(message, error) and "Traceback" not in error
    assert all(path.read_bytes() == content for path, content in before.items())


@pytest.mark.parametrize("flags", [[], ["--load_dir", "auto"], ["--load_dir", "RUN"]])
def test_no_run_begins_anew_where_the_newest_checkpoint_is_gone(finished, capsys, flags):
    run, folder = finished
    for step in folder.glob("step_*"):
        step.rename(folder.parent / step.name)
    before = files_of(folder)
    with pytest.raises(SystemExit):
        train.main([*run, *(flag.replace("RUN", str(folder)) for flag in flags)])
    error = capsys.readouterr().err
    assert ("latest names step_00000008, which is not there" if flags else "already holds checkpoints") in error
    assert files_of(folder) == before


def files_of(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_that_goes_on_elsewhere_leaves_alone_what_it_began_from(finished, small, tmp_path, capsys):
    folder, other = finished[1], tmp_path / "other"
    on = [*small, "--batch_size", "8", "--keep", "1", "--load_dir", str(folder), "--para_save_dir", str(other)]
    before = files_of(folder)
    train.main([*on, "--max_epoch", "1.2"])
    run = checkpoint.run_of(other)
    assert run != checkpoint.run_of(folder) and checkpoint.load_newest(other)[0].info["run"] == run
    assert [record["step"] for record in figures(other)][0] > 8
    train.main([*on, "--max_epoch", "1.5"])  # the same command goes on from where it stopped
    assert f"{other} holds the run that began from {folder}" in capsys.readouterr().out
    assert checkpoint.run_of(other) == run and files_of(folder) == before


def test_a_run_that_goes_on_elsewhere_from_the_end_has_nothing_to_save(finished, tmp_path, capsys):
    run, folder = finished
    train.main([*run, "--load_dir", str(folder), "--para_save_dir", str(tmp_path / "other")])
    printed = capsys.readouterr().out
    assert "trained to step 8;" in printed and "\ncheckpoint " not in printed
    assert not checkpoint.all_saved(tmp_path / "other")


def test_the_folder_of_another_run_is_refused_before_anything_is_done(finished, small, tmp_path, capsys):
    folder, other = finished[1], tmp_path / "other"
    train.main([*small, "--batch_size", "8", "--max_epoch", "0.5", "--para_save_dir", str(other)])
    before = files_of(tmp_path)
    with pytest.raises(SystemExit):
        train.main([*small, "--keep", "1", "--load_dir", str(other), "--para_save_dir", str(folder)])
    error = capsys.readouterr().err
    assert f"{folder} holds another run; choose another --para_save_dir" in error and files_of(tmp_path) == before


@pytest.mark.parametrize(
    "name", ["best/mine", "latest/mine", "best", "run.json", "run.json/mine", "log/metrics.jsonl", "log"]
)
def test_what_no_run_has_made_is_in_the_way_and_stays(small, tmp_path, capsys, name):
    path = tmp_path / "run" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"mine")
    with pytest.raises(SystemExit):
        train.main([*small, "--batch_size", "8", "--max_epoch", "0.5", "--para_save_dir", str(tmp_path / "run")])
    assert str(path.parent if name.endswith("/mine") else path) in capsys.readouterr().err
    assert [entry for entry in (tmp_path / "run").rglob("*") if entry.is_file()] == [path]
    assert path.read_bytes() == b"mine"


@pytest.mark.parametrize("flag", ["--train_path", "--test_path"])
def test_a_runs_folder_is_not_its_text(small, tmp_path, capsys, flag):
    shutil.copy(LM / "train.txt", tmp_path)
    with pytest.raises(SystemExit):
        train.main([*small, "--batch_size", "8", flag, str(tmp_path), "--para_save_dir", str(tmp_path / "run" / "..")])
    assert re.search("--para_save_dir: .* is an input; choose another name", capsys.readouterr().err)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "train.txt"] or not (tmp_path / "run").exists()


def test_checkpoints_of_other_runs_stay(finished, small, tmp_path):
    """They lie in the folder of a run with a name that it would use, and with names that it would delete."""
    folder, other = finished[1], tmp_path / "other"
    for number in (1, 4, 2):
        shutil.copytree(folder / "step_00000008", other / f"step_{number:08d}")
    (other / "step_00000003").mkdir()
    (other / "step_00000005").write_bytes(b"a file")
    (other / "step_00000006").symlink_to(folder / "step_00000008")
    before = files_of(tmp_path)
    every = ["--save_interval", "1", "--keep", "1", "--max_epoch", "0.5", "--batch_size", "8"]
    own = tmp_path / "own"
    train.main([*small, *every[2:], "--para_save_dir", str(own)])
    for entry in own.iterdir():
        entry.rename(other / (entry.name if entry.name != "step_00000004" else "step_00000004_2"))
    checkpoint.write_text(other / "latest", "step_00000004_2\n")
    train.main([*small, *every, "--max_epoch", "1.0", "--load_dir", "auto", "--para_save_dir", str(other)])
    assert all(path.read_bytes() == content for path, content in before.items())
    assert (other / "step_00000006").is_symlink() and (other / "step_00000003").is_dir()
    assert (other / "latest").read_text() == "step_00000008\n" and not (other / "step_00000007").exists()


def test_passes_over_the_text_are_counted_in_words(finished, capsys):
    run, folder = finished
    train.main([*run, "--load_dir", "auto", "--num_steps", "10", "--max_epoch", "2"])
    info = checkpoint.load_newest(folder)[0].info
    words = int(re.search("([0-9,]+) words an epoch", capsys.readouterr().out)[1].replace(",", ""))
    assert info["step"] > 8 and 2 * words <= info["tokens"] < 2 * words + 80
    assert info["tokens"] == 320 + (info["step"] - 8) * 80
    last = [record for record in read_metrics(folder / "log" / "metrics.jsonl") if record["kind"] == "train"][-1]
    assert last["epoch"] == info["tokens"] / words


@pytest.mark.parametrize(
    "flags, batch_size, accumulate",
    [([], 4, 2), (["--batch_size", "2"], 2, 4), (["--accumulate", "1"], 8, 1), (["--batch_size", "8"], 8, 1)],
)
def test_a_step_keeps_its_rows(small, tmp_path, flags, batch_size, accumulate):
    run = [*small, "--para_save_dir", str(tmp_path / "run"), "--load_dir", "auto", "--max_epoch"]
    train.main([*run, "0.5", "--batch_size", "4", "--accumulate", "2"])
    train.main([*run, "1", *flags])
    flags = checkpoint.load_newest(tmp_path / "run")[0].info["flags"]
    assert (flags["batch_size"], flags["accumulate"]) == (batch_size, accumulate)


def test_rprop_and_rmsprop_are_one_optimizer(small, tmp_path):
    run = [*small, "--para_save_dir", str(tmp_path / "run"), "--load_dir", "auto", "--batch_size", "8"]
    train.main([*run, "--max_epoch", "0.5", "--optim", "rprop"])
    first = last(tmp_path / "run")
    train.main([*run, "--max_epoch", "1", "--optim", "rmsprop"])
    then = last(tmp_path / "run")
    assert (first.info["step"], then.info["step"]) == (4, 8) and then.optimizer.keys() == first.optimizer.keys()


def test_another_vocabulary_than_the_checkpoints_is_named(finished, tmp_path, capsys):
    other = tmp_path / "other.txt"
    other.write_text((LM / "vocab.txt").read_text(encoding="utf-8") + "more\n", encoding="utf-8")
    with pytest.raises(SystemExit):
        train.main([*finished[0], "--load_dir", "auto", "--vocab_path", str(other)])
    assert re.search(r"other.txt \(61 words\) is not the vocabulary of .*step_00000008", capsys.readouterr().err)


def test_a_damaged_checkpoint_falls_back_to_the_one_before_and_says_so(finished, capsys):
    run, folder = finished
    whole = figures(folder)
    path = folder / "step_00000008" / checkpoint.MODEL_FILE
    path.write_bytes(path.read_bytes()[:-10])
    train.main([*run, "--load_dir", "auto"])
    printed = capsys.readouterr().out
    assert re.search(r"warning: .*step_00000008/model.pdparams: damaged.*trying the one before", printed)
    assert "step 4," in printed and figures(folder) == whole
    assert [name.name for name in sorted(folder.glob("step_*"))] == ["step_00000004", "step_00000008_2"]
    path = folder / "step_00000008_2" / checkpoint.MODEL_FILE
    path.write_bytes(b"")
    with pytest.raises(SystemExit):
        train.main([*run, "--load_dir", str(path.parent)])
    assert "model.pdparams: damaged" in capsys.readouterr().err


@pytest.mark.usefixtures("shown")
def test_the_folder_of_a_run_stands_for_its_best_checkpoint(finished, small, tmp_path, capsys):
    folder = finished[1]
    best = checkpoint.best_of(folder)
    assert best.name == "step_00000008" == (folder / "best").read_text().strip()
    init_pretraining_params(None, folder)
    assert f"loaded 17 parameters from {folder}" in capsys.readouterr().out
    encoder, vocabulary = load_encoder(folder)
    assert vocabulary.size == 60
    expected = checkpoint.load(best).model["lstm.embedding"]
    assert np.array_equal(encoder.lstm.embedding.numpy(), expected)
    weights = ["--load_pretraining_params", str(folder), "--batch_size", "8"]
    train.main([*small, "--para_save_dir", str(tmp_path / "new"), *weights])
    train.main([*small, "--para_save_dir", str(tmp_path / "on"), "--load_dir", str(folder), "--max_epoch", "1.2"])
    assert f"from {folder / 'step_00000008'}: step 8" in capsys.readouterr().out


def test_the_model_folder_tells_everything(finished):
    folder = finished[1] / "step_00000008"
    info = json.loads((folder / checkpoint.INFO_FILE).read_text(encoding="utf-8"))
    assert info["step"] == 8 and info["tokens"] == 320 and info["flags"]["learning_rate"] == 0.2
    assert info["model"] == dict(
        vocab_size=60, embed_size=8, hidden_size=12, num_layers=2, cell_clip=3.0, proj_clip=3.0
    )
    assert info["versions"]["paddle"] == paddle.__version__ and info["dev"]["perplexity"] > 1
    assert (folder / "vocabulary.txt").read_text(encoding="utf-8") == Vocabulary(LM / "vocab.txt").text
    sums = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=folder, capture_output=True)
    assert sums.returncode == 0


def test_help_names_every_flag_of_the_original():
    printed = run_python("train.py", "--help").stdout
    for name in """train_path test_path vocab_path batch_size embed_size hidden_size num_layers num_steps learning_rate
        optim dropout max_grad_norm proj_clip cell_clip max_epoch sample_softmax n_negative_samples_batch log_interval
        save_interval dev_interval para_save_dir load_dir load_pretraining_params shuffle random_seed use_gpu
        all_train_tokens local update_method test_nccl use_custom_samples enable_ce data_path""".split():
        assert re.search(rf"^  --{name}\b", printed, re.MULTILINE), name
