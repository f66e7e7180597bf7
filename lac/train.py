"""Train the tagger on tagged lines, with ELMo vectors or without.

    sh lac/run.sh                                 # with ELMo from the checkpoint of `sh run.sh`, data of the project
    python -m lac.train --train_data lac/data/train.txt --dev_data lac/data/dev.txt \\
        --pretrain_elmo_model_path "checkpoints/$(cat checkpoints/latest)"  # without this flag: the baseline
    python -m lac.train … --load_dir auto         # go on after a kill
    python -m lac.train --init_from lac --train_data mine.txt  # train a released model on
    python -m paddle.distributed.launch --nproc_per_node 2 "$(command -v python)" -m lac.train …  # two processes

The loss is the negative log likelihood of a sentence's tags in nats, its mean over the sentences of a batch; that
of an epoch is the mean over its batches. F1 is over words as spans of characters (`lac/scores.py`).

Top to bottom: one step, scores, set-up, resuming, the loop.
"""

import argparse
import hashlib
import math
import os
import shlex
import sys
from pathlib import Path
from typing import Callable, List, NamedTuple, Optional

from elmo_chinese import checkpoint, runtime, session
from elmo_chinese.checkpoint import CheckpointError, Score
from elmo_chinese.command import command
from elmo_chinese.gradients import all_reduce_sum, gradient_norm
from elmo_chinese.metrics import CURVES, MetricsLog, StepClock, duration, say, show_progress
from elmo_chinese.options import OptionError, parse
from elmo_chinese.session import StopRequest, TrainingError, choose_device, versions
from elmo_chinese.vocabulary import Vocabulary

import numpy as np
import paddle
import paddle.distributed as dist

from bilm import StepRandom, load_encoder
from lac import dictionaries, release
from lac import model as tagging
from lac.layers import LayerCache
from lac.lines import kinds_of, read_gold
from lac.model import Encoded, Model
from lac.network import Tagger
from lac.options import HPARAMS, OWN, RETIRED, SIZES, make_parser
from lac.reader import Sentence, pad, read_table, read_tags, training_batches
from lac.scores import Scores, describe

# Records of this program besides those of "train".
CURVES["epoch"] = ("loss", "precision", "recall", "f1", "segmentation_f1", "gamma", "mix_0", "mix_1", "mix_2", "mix_3")
# What `checkpoint.json` must hold for a run to go on.
INFO = {
    **{"step": int, "flags": dict, "tags": list, "train_sha256": str, "progress/step": int, "progress/costs": float},
    **{"progress/best_f1": (float, type(None)), "progress/epochs_since_best": int, "progress/steps_since_epoch": int},
    "progress/sentences": (int, type(None)),  # older ones do not count them
}
# Dropout of the ELMo layers has the streams 1, 2 … of a step.
UNKNOWN_STREAM = 100


class Text(NamedTuple):
    """A tagged text as the network gets it."""

    sentences: List[Sentence]
    encoded: Encoded
    layers: Optional[Callable]  # a `LayerCache`; None without ELMo, or if it is to be computed anew


class Run(NamedTuple):
    """What stays the same from the first step to the last."""

    options: argparse.Namespace
    model: Model
    optimizer: paddle.optimizer.Optimizer
    train: Text
    tag_ids: List[np.ndarray]  # of the training sentences
    rare: np.ndarray  # bool by word id: sometimes read as the unknown word
    dev: Optional[Text]
    steps_per_epoch: int
    first_step: int  # of the first epoch, had the batch size always been today's: 0 unless it was changed
    total_steps: int
    fingerprint: str  # of the training lines
    dev_fingerprint: Optional[str]
    log: Optional[MetricsLog]  # of the first process

    @property
    def last_epoch(self):
        return math.ceil(self.epoch(self.total_steps))

    def epoch(self, step):
        return (step - self.first_step) / self.steps_per_epoch


def average_gradients(parameters):
    """Replace each gradient by the sum over all processes; one that has no lines this time adds nothing."""
    if dist.get_world_size() == 1:
        return
    gradients = [
        paddle.zeros(parameter.shape) if parameter.grad is None else parameter.grad for parameter in parameters
    ]
    flat = paddle.concat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    for parameter, part in zip(parameters, paddle.split(flat, [parameter.size for parameter in parameters])):
        if parameter.grad is None:
            (parameter * 0).sum().backward()
        parameter.grad.set_value(part.reshape(parameter.shape))


def train_step(run, batch, step, stop=False):
    """Do one update on the sentences `batch` (numbers), of which this process works on its share.

    Returns:
        `(cost, stop)`: the mean negative log likelihood of the whole batch's sentences, in nats, and whether
        any process was asked to stop.

    Raises:
        TrainingError: the cost or a gradient is not finite; the parameters are as they were before the step.
    """
    tagger, encoded, total = run.model.tagger, run.train.encoded, 0.0
    bounds = len(batch) * np.arange(dist.get_world_size() + 1) // dist.get_world_size()
    first, last = bounds[dist.get_rank()], bounds[dist.get_rank() + 1]
    mine = batch[first:last]
    if len(mine):
        # Padded to the width of the whole batch, so that random numbers do not depend on who has which share.
        width = int(encoded.lengths[batch].max())
        random = StepRandom(run.options.random_seed, step, int(first))
        words = pad([encoded.words[number] for number in mine], width)
        keep = random.keep_mask(UNKNOWN_STREAM, len(mine), width, run.options.unknown_rate)
        if run.rare.any():
            words = np.where(run.rare[words] & ~keep, run.model.text.unknown, words)
        elmo = None
        if encoded.elmo is not None:
            ids = run.train.layers
            elmo = ids(mine, width) if ids else paddle.to_tensor(pad([encoded.elmo[number] for number in mine], width))
        tags = pad([run.tag_ids[number] for number in mine], width)
        arrays = [paddle.to_tensor(array) for array in (words, encoded.lengths[mine], tags)]
        cost = tagger.costs(*arrays, elmo, random).sum() / len(batch)
        cost.backward()
        total = float(cost)
    total, asked = all_reduce_sum([total, float(stop)])
    parameters = tagger.trained_parameters()
    average_gradients(parameters)
    norm = gradient_norm(parameters)
    if not (math.isfinite(total) and math.isfinite(norm)):
        run.optimizer.clear_grad()
        raise TrainingError(f"loss is {total}, gradient norm is {norm}")
    run.optimizer.step()
    run.optimizer.clear_grad()
    return total, asked > 0


def evaluate(model: Model, text: Text) -> Scores:
    """Return the scores of a model on a text; the processes share the work."""
    model.tagger.eval()
    paths = tagging.predict_ids(model, text.encoded, text.layers, dist.get_rank(), dist.get_world_size())
    flat = np.concatenate(paths)
    if dist.get_world_size() > 1:
        flat = paddle.to_tensor(flat)
        dist.all_reduce(flat)
        flat = flat.numpy()
    model.tagger.train()
    paths = np.split(flat, np.cumsum(text.encoded.lengths)[:-1])
    return tagging.score_ids(model, text.sentences, paths)


def mix_figures(tagger):
    """Return gamma and the weights of the ELMo layers, nothing without ELMo."""
    if tagger.encoder is None:
        return {}
    mix = tagger.encoder.mixes[0]
    weights = paddle.nn.functional.softmax(mix.ELMo_w).tolist()
    return {"gamma": float(mix.ELMo_gamma.numpy()[0]), **{f"mix_{n}": weight for n, weight in enumerate(weights)}}


def fingerprint(sentences):
    """Return a digest of tagged sentences."""
    digest = hashlib.sha256()
    for sentence in sentences:
        digest.update(f"{' '.join(sentence.words)}\t{' '.join(sentence.tags)}\n".encode("utf-8"))
    return digest.hexdigest()


def checkpoint_to_resume(options, given):
    """Return the checkpoint to go on from, or None; take over its flags."""
    found = session.find_checkpoint(options.load_dir, Path(options.model_save_dir), "--model_save_dir")
    if found:
        if "tags" not in found.info:
            raise CheckpointError(f"{found.path} is a language model; --pretrain_elmo_model_path takes it")
        checkpoint.check_info(found, INFO)
        session.take_flags(found, make_parser(""), options, given, SIZES, OWN)
    return found


def read_training_lines(options, typed, kinds):
    """Return the gold lines to train on; say what is left out."""
    lines, problems = read_gold(options.train_data, options.on_bad_line, typed, kinds)
    if problems and dist.get_rank() == 0:
        say(f"warning: {len(problems)} lines skipped, the first: {problems[0]}")
    return lines


def read_held_out(options, paths, text):
    """Return the sentences of held-out files; say what is left out or cannot be found."""
    sentences, problems, missed = tagging.read_held_out(text, paths, options.on_bad_line)
    if dist.get_rank() == 0:
        if problems:
            say(f"warning: {len(problems)} lines skipped, the first: {problems[0]}")
        if missed:
            say(f"warning: {missed} gold words of {paths[0]} have types that the tag set lacks; they count as missed")
    return sentences


def load_elmo(options):
    """Return encoder and vocabulary of the pretrained biLM, None and None if there is none."""
    path = options.pretrain_elmo_model_path
    if not path:
        return None, None
    vocabulary = Vocabulary(options.elmo_dict_dir) if options.elmo_dict_dir else None
    ends = dict(start=vocabulary.start, end=vocabulary.end) if vocabulary else {}
    how = dict(boundaries=options.elmo_boundaries, legacy=options.elmo_legacy)
    encoder, own = load_encoder(path, l2=options.elmo_l2_coef, dropout=options.elmo_dropout, **how, **ends)
    if vocabulary is None and own is None:
        raise OptionError(f"{path} has no vocabulary in it: --elmo_dict_dir must name the one it was trained with")
    if vocabulary and own and vocabulary.sha256 != own.sha256:
        raise OptionError(f"{options.elmo_dict_dir} is not the vocabulary of {path}; leave --elmo_dict_dir out")
    vocabulary = vocabulary or own
    if vocabulary.size != encoder.config["vocab_size"]:
        raise OptionError(
            f"{options.elmo_dict_dir} has {vocabulary.size} words, but {path} was trained with "
            f"{encoder.config['vocab_size']}"
        )
    return encoder, vocabulary


def make_model(options, tags, lines):
    """Return a freshly initialised `Model` for gold lines."""
    table = read_table(options.word_rep_dict_path) if options.word_rep_dict_path else {}
    words = Vocabulary(options.word_dict_path).words if options.word_dict_path else None
    text = dictionaries.from_lines(lines, tags, table, words)
    encoder, elmo_vocabulary = load_elmo(options)
    # After the biLM: its initial numbers must not shift those of the tagger, which is to be compared without it.
    paddle.seed(options.random_seed)
    sizes = (options.word_emb_dim, options.grnn_hidden_dim, options.bigru_num)
    rates = (options.emb_learning_rate, options.crf_learning_rate)
    tagger = Tagger(text.size, len(tags), *sizes, *rates, encoder)
    return Model(tagging.decoder(tagger), text, elmo_vocabulary, tagger)


def init_model(options, given):
    """Return the `Model` that --init_from names, its own sizes among the flags, with an ELMo mix if one is given."""
    for name in (*SIZES, "word_dict_path", "label_dict_path"):
        if name in given:
            raise OptionError(f"--{name} does not go with --init_from, which brings its own")
    rates = dict(emb_learning_rate=options.emb_learning_rate, crf_learning_rate=options.crf_learning_rate)
    released = release.named(options.init_from)
    if released:
        encoder, elmo_vocabulary = load_elmo(options)
        model = release.load(*released, encoder, **rates)._replace(elmo_vocabulary=elmo_vocabulary)
    elif options.pretrain_elmo_model_path:
        raise OptionError("--pretrain_elmo_model_path goes with a released model; others have their ELMo or none")
    else:
        found = checkpoint.load(checkpoint.resolve(options.init_from))
        model = tagging.restore(found, dict(l2=options.elmo_l2_coef, dropout=options.elmo_dropout), **rates)
    for name in SIZES:
        setattr(options, name, model.tagger.config[name])
    return model._replace(text=model.text.for_other_lines())


def restore_model(options, given, found):
    """Return the `Model` of a checkpoint; the biLM, vocabularies, tags and table are the checkpoint's own."""
    if "label_dict_path" in given and read_tags(options.label_dict_path) != found.info["tags"]:
        raise OptionError(f"{options.label_dict_path} is not the tag set of {found.path}; leave it out")
    elmo = dict(l2=options.elmo_l2_coef, dropout=options.elmo_dropout)
    rates = dict(emb_learning_rate=options.emb_learning_rate, crf_learning_rate=options.crf_learning_rate)
    return tagging.restore(found, elmo, **rates)


def make_text(model, sentences, options, name):
    """Return a `Text`; computes the ELMo layers of all its sentences."""
    encoded = tagging.encode(model, [sentence.words for sentence in sentences])
    layers = None
    if encoded.elmo is not None and options.elmo_cache != "off":
        path = Path(options.model_save_dir) / f"elmo_layers.{name}"
        layers = LayerCache(model.tagger.encoder, encoded.elmo, path, options.elmo_cache)
    return Text(sentences, encoded, layers)


def rare_words(model, encoded):
    """Return which words are sometimes read as the unknown one: those seen once, if the words come from these lines."""
    if model.text.weight is None:
        return np.zeros(model.text.size, dtype=bool)
    return np.bincount(np.concatenate(encoded.words), minlength=model.text.size) == 1


def set_up(options, given):
    """Make everything a run needs; return the `Run` and the progress to start the loop with."""
    device = choose_device(options.use_gpu)
    found = checkpoint_to_resume(options, given)
    if not options.train_data:
        raise OptionError("--train_data is missing; --help says what it takes")
    model = restore_model(options, given, found) if found else init_model(options, given) if options.init_from else None
    tags = model.text.tags if model else read_tags(options.label_dict_path)
    if model:
        lines = read_training_lines(options, model.text.typed, model.text.kinds)
    else:
        lines = read_training_lines(options, True, kinds_of(tags))
        model = make_model(options, tags, lines)
    sentences = model.text.training_sentences(lines)
    digest = fingerprint(sentences)
    if found and digest != found.info["train_sha256"]:
        raise OptionError(f"the training lines are not those of {found.path}; start a new run with other lines")
    model.tagger.train()
    optimizer = paddle.optimizer.Adam(options.base_learning_rate, parameters=model.tagger.trained_parameters())
    progress = dict(step=0, sentences=0, best_f1=None, epochs_since_best=0, costs=0.0, steps_since_epoch=0)
    if found:
        checkpoint.restore_optimizer(optimizer, model.tagger, found.optimizer, found.path / checkpoint.OPTIMIZER_FILE)
        progress = found.info["progress"]
    dev = read_held_out(options, options.dev_data, model.text) if options.dev_data else None
    steps = math.ceil(len(sentences) / options.batch_size)
    first = first_step(progress, len(sentences), options, found)
    total = first + steps * options.max_epoch
    log = None
    if dist.get_rank() == 0:
        hparams = {name: getattr(options, name) for name in HPARAMS}
        hparams.update(elmo=model.tagger.encoder is not None, train_lines=len(sentences))
        compared = ["epoch/f1", "epoch/segmentation_f1"] if dev else ["epoch/loss"]
        log = MetricsLog(Path(options.model_save_dir) / "log", progress["step"], hparams, compared)
    if log:
        report_start(options, device, found, model, sentences, dev, steps, first, total)
    train, index = make_text(model, sentences, options, "train"), model.text.tag_ids
    run = Run(
        options,
        model,
        optimizer,
        train,
        [np.array([index[tag] for tag in sentence.tags], dtype=np.int64) for sentence in sentences],
        rare_words(model, train.encoded),
        make_text(model, dev, options, "dev") if dev else None,
        steps,
        first,
        min(total, options.num_iterations or total),
        digest,
        fingerprint(dev) if dev else None,
        log,
    )
    return run, progress


def first_step(progress, count, options, found):
    """Return the step at which the first epoch would have begun, had the batch size always been today's.

    What was trained on is counted in sentences. Where the batch size was changed within an epoch, the sentences of a
    batch that is begun are trained on again.

    Args:
        progress: "sentences" is set to those of whole batches of today.
        count: of training sentences.
    """

    def sizes(batch_size, epoch):
        batches = training_batches(np.zeros(count), batch_size, options.random_seed, epoch)
        return np.cumsum([len(batch) for batch in batches])

    if progress.get("sentences") is None:  # a checkpoint of before they were counted
        batch_size = found.info["flags"]["batch_size"]
        epoch, batches = divmod(progress["step"], math.ceil(count / batch_size))
        progress["sentences"] = epoch * count + int(np.sum(sizes(batch_size, epoch)[batches - 1 : batches]))
    epoch, done = divmod(progress["sentences"], count)
    ends = sizes(options.batch_size, epoch)
    batches = int(np.searchsorted(ends, done, side="right"))
    progress["sentences"] = epoch * count + (int(ends[batches - 1]) if batches else 0)
    return progress["step"] - epoch * len(ends) - batches


def report_start(options, device, found, model, sentences, dev, steps, first, total):
    """Print what is about to be trained, and on what."""
    tagger = model.tagger
    trained = sum(parameter.size for parameter in tagger.trained_parameters())
    frozen = sum(parameter.size for parameter in tagger.parameters()) - trained
    words = sum(len(sentence.words) for sentence in sentences)
    if found:
        say(f"going on from {found.path}: step {found.info['step']}, epoch {(found.info['step'] - first) / steps:.2f}")
    say(f"devices     {dist.get_world_size()} × {device} ({runtime.SETTINGS})")
    say("versions    " + ", ".join(f"{name} {version}" for name, version in versions().items()))
    say(f"network     {', '.join(f'{name} {size}' for name, size in tagger.config.items())}")
    if tagger.encoder:
        cache = f"layers kept as {options.elmo_cache}" if options.elmo_cache != "off" else "layers computed each time"
        say(f"ELMo        {', '.join(f'{name} {size}' for name, size in tagger.encoder.config.items())}; {cache}")
    say(f"parameters  {trained:,} trained, {frozen:,} frozen")
    say(f"text        {len(sentences)} lines of {words} words to train on, {len(dev) if dev else 0} dev lines")
    say(f"steps       up to {total} ({steps} of {options.batch_size} lines an epoch), seed {options.random_seed}")


def save_checkpoint(run, progress, scores):
    """Write everything a resumed run and a prediction need; the first process writes."""
    if dist.get_rank() == 0:
        info = {
            "step": progress["step"],
            "epoch": run.epoch(progress["step"]),
            "progress": progress,
            "dev": None if scores is None else scores.overall._asdict(),
            "flags": vars(run.options),
            "train_sha256": run.fingerprint,
            "versions": versions(),
            **tagging.model_info(run.model),
        }
        tagger = run.model.tagger
        moments = checkpoint.optimizer_arrays(run.optimizer, tagger)
        state, vocabulary = tagging.model_state(run.model), tagging.vocabulary_text(run.model)
        score = None if scores is None else Score(scores.overall.f1, run.dev_fingerprint)
        root, keep = run.options.model_save_dir, run.options.keep
        run.log.sync()
        checkpoint.save(root, info, tagger.state_dict(), moments, state, vocabulary, keep, score)
    if dist.get_world_size() > 1:
        dist.barrier()


def finish_epoch(run, progress, clock):
    """Score the dev lines, write the figures; return the scores, None without dev lines."""
    scores = evaluate(run.model, run.dev) if run.dev else None
    loss = progress["costs"] / progress["steps_since_epoch"]
    progress["costs"], progress["steps_since_epoch"] = 0.0, 0
    figures = {"epoch": run.epoch(progress["step"]), "loss": loss, **mix_figures(run.model.tagger)}
    best = True
    if scores:
        best = progress["best_f1"] is None or scores.overall.f1 > progress["best_f1"]
        progress["epochs_since_best"] = 0 if best else progress["epochs_since_best"] + 1
        if best:
            progress["best_f1"] = scores.overall.f1
        precision, recall, f1 = scores.overall[:3]
        figures.update(precision=precision, recall=recall, f1=f1, segmentation_f1=scores.segmentation.f1)
    if run.log:
        run.log.write("epoch", progress["step"], figures)
        report_epoch(run, figures, best, clock.left(run.total_steps - progress["step"]))
    return scores


def report_epoch(run, figures, best, left):
    """Print the figures of an epoch."""
    text = f"epoch {figures['epoch']:.4g}/{run.last_epoch}  loss {figures['loss']:.4f}"
    if "f1" in figures:
        text += f"  dev F1 {100 * figures['f1']:.2f} (precision {100 * figures['precision']:.2f}, "
        text += f"recall {100 * figures['recall']:.2f}), segmentation F1 {100 * figures['segmentation_f1']:.2f}"
        text += "  best so far" if best else ""
    if "gamma" in figures:
        weights = " ".join(f"{value:.3f}" for name, value in figures.items() if name.startswith("mix_"))
        text += f"  mix {weights}, gamma {figures['gamma']:.3f}"
    say(f"{text}  left at most {duration(left)}")


def log_step(run, progress, cost, tokens, clock):
    """Write the figures of one step."""
    step = progress["step"]
    speed = tokens * clock.steps_per_second()
    if run.log:
        run.log.write("train", step, {"loss": cost, "tokens_per_second": speed})
        show_progress(step, run.total_steps, f"step {step}/{run.total_steps}  loss {cost:.4f}  {speed:.0f} tokens/s")


def over(run, progress):
    """Say whether training has come to its end."""
    done = progress["step"] >= run.total_steps
    return done or progress["epochs_since_best"] >= run.options.patience


def train(run, progress):
    """The loop: step → log → after each epoch evaluate and save, until the last step or until asked to stop."""
    options, request, clock = run.options, StopRequest(), StepClock()
    lengths, epoch, stop, tokens = run.train.encoded.lengths, None, False, 0
    while not over(run, progress) and not stop:
        step = progress["step"]
        number, place = divmod(step - run.first_step, run.steps_per_epoch)
        if number != epoch:
            epoch = number
            batches = training_batches(lengths, options.batch_size, options.random_seed, epoch)
        batch = batches[place]
        with clock:
            try:
                cost, stop = train_step(run, batch, step, request.asked)
            except TrainingError as error:
                raise TrainingError(
                    f"step {step + 1}: {error}; stopped. The checkpoints in {options.model_save_dir} are from before: "
                    "go on from one of them with a lower --base_learning_rate"
                )
        progress["step"] += 1
        progress["sentences"] += len(batch)
        progress["costs"] += cost
        progress["steps_since_epoch"] += 1
        tokens += int(lengths[batch].sum())
        if progress["step"] % options.log_interval == 0:
            log_step(run, progress, cost, tokens / options.log_interval, clock)
            tokens = 0
        if place + 1 == run.steps_per_epoch or progress["step"] == run.total_steps:
            save_checkpoint(run, progress, finish_epoch(run, progress, clock))
        elif stop:
            save_checkpoint(run, progress, None)
    if run.log:
        run.log.close()
        report_end(run, progress)


def report_end(run, progress):
    """Print where everything is, and the scores of the best model."""
    root = Path(run.options.model_save_dir)
    if not over(run, progress):
        say(f"asked to stop: saved step {progress['step']}; go on with the same command and --load_dir auto")
        return
    folder = checkpoint.resolve(root)
    say(f"trained to step {progress['step']}; more with --load_dir auto and a larger --max_epoch or --patience")
    say(f"best model  {folder}")
    if run.options.test_data:
        model = tagging.load(folder)
        sentences = read_held_out(run.options, run.options.test_data, model.text)
        say(f"test        {len(sentences)} lines\n{describe(tagging.score_model(model, sentences))}")
    say(f"logs        {root / 'log'}\ncurves      visualdl --logdir {shlex.quote(os.path.relpath(root / 'log'))}")


def refuse(message):
    """Raise what is wrong with the flags."""
    raise OptionError(f"{message}; --help lists all flags")


def run(arguments):
    """Train by flags, as from the command line; errors are raised."""
    parser = make_parser(__doc__)
    parser.error = refuse  # a program that calls this must not be ended
    options, given, notes = parse(parser, RETIRED, arguments)
    for note in notes:
        say(note)
    with checkpoint.only_run(Path(options.model_save_dir), "--model_save_dir"):
        train(*set_up(options, given))


def main(arguments=None):
    """Run from the command line; user errors end with a message and exit code 1."""
    with command():
        run(sys.argv[1:] if arguments is None else arguments)


if __name__ == "__main__":
    main()
