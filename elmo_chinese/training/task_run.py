"""What stands around the loop of a task: its biLM and the layers of its texts, what is said at start and end, flags."""

import argparse
import os
import shlex
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Set, Tuple

from elmo_chinese import runtime
from elmo_chinese.command import OptionError
from elmo_chinese.console import say
from elmo_chinese.storage import checkpoint
from elmo_chinese.storage.checkpoint import Checkpoint
from elmo_chinese.text.vocabulary import Vocabulary
from elmo_chinese.training.flags import TrainingParser
from elmo_chinese.training.layers import LayerCache
from elmo_chinese.training.session import versions
from elmo_chinese.training.task import Progress, Task, over, train

import numpy as np
import paddle.distributed as dist
from paddle import nn


def load_elmo(options: argparse.Namespace, load_encoder: Callable, **more) -> Tuple[Optional[nn.Layer], Any]:
    """Return encoder and vocabulary of the pretrained biLM that the flags name, None and None if there is none.

    Args:
        load_encoder: `bilm.load_encoder`. more: arguments for it, besides what flags say.

    Raises:
        OptionError: there is no vocabulary, or another than the biLM was trained with.
    """
    path = options.pretrain_elmo_model_path
    if not path:
        for name in ("elmo_dict_dir", "elmo_boundaries", "elmo_legacy"):
            if getattr(options, name):
                raise OptionError(f"--{name} says how a biLM is read, but --pretrain_elmo_model_path names none")
        return None, None
    vocabulary = Vocabulary(options.elmo_dict_dir) if options.elmo_dict_dir else None
    ends = dict(start=vocabulary.start, end=vocabulary.end) if vocabulary else {}
    how = dict(boundaries=options.elmo_boundaries, legacy=options.elmo_legacy, l2=options.elmo_l2_coef)
    encoder, own = load_encoder(path, **how, **ends, **more)
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


def keep_layers(
    options: argparse.Namespace, encoder: Optional[nn.Layer], texts: Optional[List[List[np.ndarray]]], name: str
) -> Optional[LayerCache]:
    """Return the ELMo layers of texts, computed and kept in the run's folder; None without ELMo or --elmo_cache.

    Args:
        texts: the sentences of each text as the biLM's word ids, None without ELMo. name: of the texts.
    """
    if texts is None or options.elmo_cache == "off":
        return None
    path = (
        Path(options.model_save_dir) / f"elmo_layers.{name}.e1e1e1e1.tmp"
    )  # a temporary name, the same in each process
    return LayerCache(encoder, texts, path, options.elmo_cache)


def report_start(task: Task, device: str, sizes: Dict[str, Any], found: Optional[Checkpoint], text: str) -> None:
    """Print what is about to be trained, and on what; `text` says what the examples are."""
    options, network = task.options, task.network
    trained = sum(parameter.size for parameter in network.trained_parameters())
    frozen = sum(parameter.size for parameter in network.parameters()) - trained
    if found:
        step = found.info["step"]
        say(f"resuming from {found.path}: step {step}, epoch {task.epoch(step):.2f}")
    say(f"devices     {dist.get_world_size()} × {device} ({runtime.SETTINGS})")
    say("versions    " + ", ".join(f"{name} {version}" for name, version in versions().items()))
    say(f"network     {', '.join(f'{name} {size}' for name, size in sizes.items())}")
    if network.encoder:
        cache = f"layers kept as {options.elmo_cache}" if options.elmo_cache != "off" else "layers computed each time"
        say(f"ELMo        {', '.join(f'{name} {size}' for name, size in network.encoder.config.items())}; {cache}")
    say(f"parameters  {trained:,} trained, {frozen:,} frozen")
    say(f"text        {text}")
    say(f"steps       up to {task.total_steps} ({task.steps_per_epoch} an epoch), seed {options.random_seed}")


def report_end(task: Task, progress: Progress) -> Optional[Path]:
    """Print where everything is; return the folder of the best model, None if training was asked to stop."""
    root = Path(task.options.model_save_dir)
    if not over(task, progress):
        say(f"asked to stop: saved step {progress.step}; resume with the same command and --load_dir auto")
        return None
    folder = checkpoint.resolve(root)
    say(f"trained to step {progress.step}; more with --load_dir auto and a larger --max_epoch or --patience")
    say(f"best model  {folder}")
    say(f"logs        {root / 'log'}\ncurves      visualdl --logdir {shlex.quote(os.path.relpath(root / 'log'))}")
    return folder


def run(
    parser: TrainingParser,
    set_up: Callable[[TrainingParser, List[str], argparse.Namespace, Set[str]], Tuple[Task, Progress]],
    score: Callable[[argparse.Namespace, Path], str],
    arguments: List[str],
) -> None:
    """Train by flags, as from the command line, while no other run has the folder; errors are raised.

    Args:
        set_up: makes everything a run needs, from the parser, the arguments and what `TrainingParser.parse` returns.
        score: function of the flags and of the best model's folder → the scores on --test_data, as text.
    """
    options, given = parser.parse(arguments)
    with checkpoint.only_run(options.model_save_dir, "--model_save_dir"):
        task, progress = set_up(parser, arguments, options, given)
        train(task, progress)
        folder = report_end(task, progress) if task.log else None
        if folder and options.test_data:
            say(f"test        {score(options, folder)}")
