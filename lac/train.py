"""Train the tagger on tagged lines, with ELMo vectors or without.

    sh lac/run.sh                                 # with ELMo from the checkpoint of `sh run.sh`, data of the project
    python -m lac.train --train_data lac/data/train.txt --dev_data lac/data/dev.txt \\
        --pretrain_elmo_model_path checkpoints    # without this flag: the baseline
    python -m lac.train … --load_dir auto         # resume after a kill
    python -m lac.train --init_from lac --train_data mine.txt  # train a released model on
    python -m paddle.distributed.launch --nproc_per_node 2 "$(command -v python)" -m lac.train …  # two processes

The loss is the negative log likelihood of a sentence's tags in nats, its mean over the sentences of a batch; that
of an epoch is the mean over its batches. F1 is over words as spans of characters (`lac/evaluate.py`).

Top to bottom: loss and score, set-up. The loop is in `elmo_chinese/training/loop.py`.
"""

import argparse
import hashlib
import sys
from functools import partial
from pathlib import Path
from typing import Any, Dict, List, Optional, Set, Tuple

if not __package__:  # typed as `cd lac; python train.py`: the project is one folder up
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from elmo_chinese.command import OptionError, command
from elmo_chinese.console import say
from elmo_chinese.storage import checkpoint
from elmo_chinese.storage.checkpoint import Checkpoint
from elmo_chinese.text.segmenter import DIGITS
from elmo_chinese.text.vocabulary import Vocabulary
from elmo_chinese.training import session, task
from elmo_chinese.training.batches import pad
from elmo_chinese.training.flags import TrainingParser
from elmo_chinese.training.layers import LayerCache, load_elmo, unknown_lines

import numpy as np
import paddle
import paddle.distributed as dist

from bilm import StepRandom, load_encoder
from lac import dictionaries, release
from lac import model as tagging
from lac.dictionaries import TABLE_FILE, TAGS_FILE, Dictionaries, Sentence, read_table, read_tags
from lac.evaluate import describe, read_gold_sentences, score_ids, score_model
from lac.lines import Line, labels_of, read_gold, tags_of
from lac.model import Encoded, Model
from lac.network import Tagger
from lac.options import SIZES, make_parser

# Dropout of the ELMo layers has the streams 1, 2 … of a step.
UNKNOWN_STREAM = 100


class Text:
    """A tagged text as the network gets it.

    Attributes:
        texts: see `task.keep_layers`. layers: of them; None without ELMo, or if they are computed anew each time.
    """

    def __init__(self, model: Model, sentences: List[Sentence]):
        self.sentences = sentences
        self.encoded = tagging.encode(model, [sentence.words for sentence in sentences])
        self.texts = self.encoded.elmo and [[ids] for ids in self.encoded.elmo]
        self.layers: Optional[LayerCache] = None


class Tagging(task.Task):
    """What the tagger is to the loop: an example is a sentence.

    Args:
        train, dev: texts; dev is None without --dev_data. test: the sentences of --test_data.
        found: the checkpoint that the run is resumed from, None for a new run.
    """

    def __init__(
        self,
        options: argparse.Namespace,
        model: Model,
        train: Text,
        dev: Optional[Text],
        test: List[Sentence],
        found: Optional[Checkpoint],
    ):
        self.model, self.train, self.dev, self.test = model, train, dev, test
        texts = fingerprint(train.sentences), dev and fingerprint(dev.sentences)
        super().__init__(options, model.tagger, train.encoded.lengths, options.batch_size, *texts, found)
        index = model.text.tag_ids
        self.tag_ids = [np.array([index[tag] for tag in one.tags], dtype=np.int64) for one in train.sentences]
        self.rare = rare_words(model, train.encoded)

    def share_of_loss(self, batch: np.ndarray, mine: slice, step: int) -> paddle.Tensor:
        """Return a part of the negative log likelihood of the tags; see `Task.share_of_loss`."""
        # Padded to the width of the whole batch, so that random numbers do not depend on who has which share.
        encoded, options = self.train.encoded, self.options
        width, random = int(encoded.lengths[batch].max()), StepRandom(options.random_seed, step, mine.start)
        share = batch[mine]
        words = pad([encoded.words[number] for number in share], width)
        keep = random.keep_mask(UNKNOWN_STREAM, len(share), width, options.unknown_rate)
        if self.rare.any():
            words = np.where(self.rare[words] & ~keep, self.model.text.unknown, words)
        elmo = None
        if self.train.layers:
            elmo = self.train.layers(share, width)
        elif encoded.elmo is not None:
            elmo = paddle.to_tensor(pad([encoded.elmo[number] for number in share], width))
        tags = pad([self.tag_ids[number] for number in share], width)
        arrays = [paddle.to_tensor(array) for array in (words, encoded.lengths[share], tags)]
        return self.model.tagger.costs(*arrays, elmo, random).sum() / len(batch)

    def predict_dev(self) -> np.ndarray:
        """Return the tag ids of all dev words, one after the other; see `Task.predict_dev`."""
        place = dist.get_rank(), dist.get_world_size()
        return np.concatenate(tagging.predict_ids(self.model, self.dev.encoded, self.dev.layers, *place))

    def score_dev(self, answers: np.ndarray) -> Tuple[float, Dict[str, float], Dict[str, float]]:
        """Return F1, with figures of words and of their bounds alone; see `Task.score_dev`."""
        paths = np.split(answers, np.cumsum(self.dev.encoded.lengths)[:-1])
        scores = score_ids(self.model, self.dev.sentences, paths)
        precision, recall, f1 = scores.overall[:3]
        figures = dict(precision=precision, recall=recall, f1=f1, segmentation_f1=scores.segmentation.f1)
        return f1, figures, scores.overall._asdict()

    def describe_scores(self, figures: Dict[str, float]) -> str:
        """Return the dev figures of a pass as text."""
        return (
            f"dev F1 {100 * figures['f1']:.2f} (precision {100 * figures['precision']:.2f}, "
            f"recall {100 * figures['recall']:.2f}), segmentation F1 {100 * figures['segmentation_f1']:.2f}"
        )

    def score_test(self, folder: Path) -> Optional[str]:
        """Return the scores of a folder's model on --test_data, as text."""
        if not self.test:
            return None
        return f"{len(self.test)} lines\n{describe(score_model(tagging.load(folder), self.test))}"

    def model_content(self) -> Tuple[Dict[str, Any], Dict[str, np.ndarray], str]:
        """Return what makes the model again; see `Task.model_content`."""
        return tagging.model_info(self.model), tagging.model_state(self.model), tagging.vocabulary_text(self.model)


def fingerprint(sentences: List[Sentence]) -> str:
    """Return a digest of tagged sentences."""
    digest = hashlib.sha256()
    for sentence in sentences:
        digest.update(f"{' '.join(sentence.words)}\t{' '.join(sentence.tags)}\n".encode("utf-8"))
    return digest.hexdigest()


def read_training_lines(options: argparse.Namespace, typed: bool, labels: Optional[Set[str]]) -> List[Line]:
    """Return the gold lines to train on, of these types (None: any); say what is left out."""
    lines, problems = read_gold(options.train_data, options.on_bad_line, typed, labels)
    if problems and dist.get_rank() == 0:
        say(f"warning: {len(problems)} lines skipped, the first: {problems[0]}")
    return lines


def read_new_tags(options: argparse.Namespace) -> Tuple[List[str], str, List[Line]]:
    """Return the tag set of a new model, where it comes from, and the gold lines to train on."""
    if options.label_dict_path:
        tags = read_tags(options.label_dict_path)
        return tags, options.label_dict_path, read_training_lines(options, True, labels_of(tags))
    lines, tags = read_training_lines(options, True, None), read_tags(TAGS_FILE)
    known, own = labels_of(tags), tags_of(lines)
    lacking = [label for label in labels_of(own) if label not in known]
    if not lacking:
        return tags, str(TAGS_FILE), lines
    return own, f"the training lines; lac/data/tag.dic lacks {', '.join(lacking[:8])}", lines


def read_held_out(options: argparse.Namespace, paths: List[str], text: Dictionaries) -> List[Sentence]:
    """Return the sentences of held-out files; say what is left out or cannot be found."""
    sentences, problems, missed = read_gold_sentences(text, paths, options.on_bad_line)
    if dist.get_rank() == 0:
        if problems:
            say(f"warning: {len(problems)} lines skipped, the first: {problems[0]}")
        if missed:
            say(f"warning: {missed} gold words of {paths[0]} have types that the tag set lacks; they count as missed")
    return sentences


def make_model(options: argparse.Namespace, tags: List[str], lines: List[Line]) -> Model:
    """Return a freshly initialised `Model` for gold lines."""
    path = TABLE_FILE if options.word_rep_dict_path is None else options.word_rep_dict_path
    table = read_table(path) if path else {}
    words = Vocabulary(options.word_dict_path).words if options.word_dict_path else None
    text = dictionaries.from_lines(lines, tags, table, words)
    encoder, elmo_vocabulary = load_elmo(options, load_encoder, dropout=options.elmo_dropout)
    # After the biLM: its initial numbers must not shift those of the tagger, which is to be compared without it.
    numbers = text.size * options.word_emb_dim + options.bigru_num * 6 * options.grnn_hidden_dim**2
    session.check_memory(numbers, 3, "--word_emb_dim, --grnn_hidden_dim or --bigru_num")
    paddle.seed(options.random_seed)
    names = ("word_emb_dim", "grnn_hidden_dim", "bigru_num", "emb_learning_rate", "crf_learning_rate")
    how = {name: getattr(options, name) for name in names}
    tagger = Tagger(text.size, len(tags), **how, encoder=encoder)
    return Model(tagging.decoder(tagger), text, elmo_vocabulary, tagger)


def init_model(options: argparse.Namespace, typed: Set[str]) -> Model:
    """Return the `Model` that --init_from names, with an ELMo mix if one is given; options get its sizes."""
    for name in (*SIZES, "word_dict_path", "label_dict_path", "word_rep_dict_path"):
        if name in typed:
            raise OptionError(f"--{name} does not go with --init_from, which brings its own")
    rates = dict(emb_learning_rate=options.emb_learning_rate, crf_learning_rate=options.crf_learning_rate)
    released = release.named(options.init_from)
    if released:
        encoder, elmo_vocabulary = load_elmo(options, load_encoder, dropout=options.elmo_dropout)
        model = release.load(*released, encoder, **rates)._replace(elmo_vocabulary=elmo_vocabulary)
    elif options.pretrain_elmo_model_path:
        raise OptionError("--pretrain_elmo_model_path goes with a released model; others have their ELMo or none")
    else:
        found = checkpoint.load(checkpoint.resolve(options.init_from))
        model = tagging.restore(found, dict(l2=options.elmo_l2_coef, dropout=options.elmo_dropout), **rates)
    for name in SIZES:
        setattr(options, name, model.tagger.config[name])
    return model._replace(text=model.text.for_other_lines())


def restore_model(options: argparse.Namespace, typed: Set[str], found: Checkpoint) -> Model:
    """Return the `Model` of a checkpoint; the biLM, vocabularies, tags and table are the checkpoint's own."""
    if "label_dict_path" in typed and read_tags(options.label_dict_path) != found.info["tags"]:
        raise OptionError(f"{options.label_dict_path} is not the tag set of {found.path}; leave it out")
    if "word_rep_dict_path" in typed:
        table = read_table(options.word_rep_dict_path) if options.word_rep_dict_path else {}
        if {chr(key): value for key, value in {**table, **DIGITS}.items()} != found.info["q2b"]:
            raise OptionError(f"{options.word_rep_dict_path!r} has other replacements than {found.path}; leave it out")
    elmo = dict(l2=options.elmo_l2_coef, dropout=options.elmo_dropout)
    rates = dict(emb_learning_rate=options.emb_learning_rate, crf_learning_rate=options.crf_learning_rate)
    return tagging.restore(found, elmo, **rates)


def rare_words(model: Model, encoded: Encoded) -> np.ndarray:
    """Return which words are sometimes read as the unknown one: those seen once, if the words come from these lines."""
    if model.text.weight is None:
        return np.zeros(model.text.size, dtype=bool)
    return np.bincount(np.concatenate(encoded.words), minlength=model.text.size) == 1


def set_up(parser: TrainingParser, arguments: List[str], options: argparse.Namespace, typed: Set[str]) -> Tagging:
    """Make everything a run needs."""
    check = partial(task.check_resumable, entry="tags", kind=list)
    found, options = session.checkpoint_to_resume(parser, arguments, options, "model_save_dir", check)
    if not options.train_data:
        raise OptionError("--train_data is missing; --help says what it takes")
    model = None
    if found:
        model = restore_model(options, typed, found)
    elif options.init_from:
        model = init_model(options, typed)
    if model:
        lines, tags_from = read_training_lines(options, model.text.typed, model.text.labels), "the model"
    else:
        tags, tags_from, lines = read_new_tags(options)
        model = make_model(options, tags, lines)
    train = Text(model, model.text.training_sentences(lines))
    dev, test = (
        read_held_out(options, paths, model.text) if paths else [] for paths in (options.dev_data, options.test_data)
    )
    job = Tagging(options, model, train, Text(model, dev) if dev else None, test, found)
    hparams = dict(parser.compared(options), train_lines=len(train.sentences))
    words = sum(len(sentence.words) for sentence in train.sentences)
    text = f"{len(train.sentences)} lines of {words} words to train on, {len(dev)} dev lines"
    lines = [f"text        {text}", f"tags        {len(model.text.tags)}, of {tags_from}"]
    lines += unknown_lines(train.encoded.elmo or [], model.elmo_vocabulary, f"--cutter {options.model_save_dir}")
    task.start(job, hparams, ["epoch/f1", "epoch/segmentation_f1"] if dev else ["epoch/loss"], found, lines)
    return job


def run(arguments: List[str]) -> None:
    """Train by flags, as from the command line; errors are raised."""
    task.run(make_parser(__doc__), set_up, arguments)


def main(arguments: Optional[List[str]] = None) -> None:
    """Run from the command line; user errors end with a message and exit code 1."""
    with command():
        run(sys.argv[1:] if arguments is None else arguments)
    session.leave()


if __name__ == "__main__":
    main()
