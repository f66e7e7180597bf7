"""The flags of `train.py`."""

import argparse
import functools
import sys
from typing import Callable, Dict, List, Optional, Sequence, Tuple

from elmo_chinese.command import UserError

# Flags of the original that mean nothing any more, and what does their work now.
RETIRED = {
    "--local": "the launcher decides how many processes train: CPU_NUM or CUDA_VISIBLE_DEVICES with run.sh",
    "--update_method": "gradients are always averaged over the processes of paddle.distributed.launch",
    "--test_nccl": "paddle.distributed.launch reports when processes cannot reach each other",
    "--use_custom_samples": "--sample_softmax draws its own negative samples",
    "--enable_ce": "every figure is in metrics.jsonl",
    "--data_path": "--train_path, --test_path and --vocab_path name the data",
}
# What makes the network; a checkpoint only fits the same.
SIZES = ("embed_size", "hidden_size", "num_layers", "proj_clip", "cell_clip")

# What VisualDL compares runs by, besides the global batch and the vocabulary.
HPARAMS = (*SIZES, "num_steps", "max_epoch", "optim", "learning_rate", "lr_schedule", "reset_states", "max_grad_norm",
           "dropout", "sample_softmax", "n_negative_samples_batch", "shuffle", "random_seed")  # fmt: skip

# What a checkpoint has no say in.
OWN = ("para_save_dir", "load_dir", "load_pretraining_params", "use_gpu", "cache_dir", "batch_size", "accumulate")


class OptionError(UserError, ValueError):
    """A flag that cannot be used as given; the message says what to do."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors end with code 1; what its program prints never ends it, whatever the terminal can show."""

    def parse_known_args(self, args=None, namespace=None):
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        return super().parse_known_args(args, namespace)

    def error(self, message):
        self.exit(1, f"{self.prog}: error: {message}\n{self.prog} --help lists all flags\n")


def positive_int(text: str) -> int:
    if not text.lstrip("-").isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


def whole_number(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 0, got {text!r}")
    return int(text)


def seed(text: str) -> int:
    if whole_number(text) >= 2**63:
        raise argparse.ArgumentTypeError(f"must be below 2^63, got {text!r}")
    return int(text)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number, got {text!r}")


def positive(text: str) -> float:
    if not 0 < _number(text) < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {text!r}")
    return float(text)


def share(text: str) -> float:
    if not 0 <= _number(text) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 0 and below 1, got {text!r}")
    return float(text)


def boolean(text: str) -> bool:
    if text.lower() not in ("true", "false", "yes", "no", "1", "0"):
        raise argparse.ArgumentTypeError(f"must be true or false, got {text!r}")
    return text.lower() in ("true", "yes", "1")


# What a switch takes; `--shuffle` alone is `--shuffle true`.
SWITCH = dict(nargs="?", const=True, metavar="true|false")


def make_help(program: str, description: str) -> Parser:
    """Return a parser without flags; `description` is the head of its help."""
    return Parser(
        prog=program, description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )


def flag_group(parser: argparse.ArgumentParser, title: str) -> Callable[..., None]:
    """Return a function `(names, type, default, help, **more)` that adds a flag to a new group; help shows defaults."""
    add = parser.add_argument_group(title).add_argument

    def flag(names, type, default, help, **more):
        shown = "" if default in (None, "", []) else f" (default: {default})"
        add(*names.split(), type=type, default=default, help=help + shown, **more)

    return flag


def make_parser(description: str) -> argparse.ArgumentParser:
    """Return the parser; `description` is the head of its help."""
    parser = make_help("train.py", description)
    group = functools.partial(flag_group, parser)

    flag = group("data")
    flag(
        "--train_path", str, "", "training text: glob pattern (quote it), folder or file; one segmented sentence a line"
    )
    flag("--test_path", str, "", "held-out text for dev perplexity, same form; empty: no evaluation")
    flag("--vocab_path", str, "", "vocabulary, one word a line, most frequent first; make it with preprocess.py")
    flag("--cache_dir", str, None, "folder for the encoded text; default: .token_cache beside each training file")
    flag("--all_train_tokens", positive_int, None, "override the counted words of one epoch; sets the number of steps")
    flag("--shuffle", boolean, False, "draw the order of files and sentences anew each epoch", **SWITCH)
    flag("--random_seed", seed, 0, "seed of initial weights, shuffling, dropout and negative samples")

    flag = group("network (a checkpoint fits only the same)")
    flag("--embed_size", positive_int, 512, "size of word embedding and LSTM projection")
    flag("--hidden_size", positive_int, 4096, "size of the LSTM cells; the first to lower when memory is short")
    flag("--num_layers", positive_int, 2, "LSTM layers per direction")
    flag("--cell_clip", positive, 3.0, "bound of the LSTM cells")
    flag("--proj_clip", positive, 3.0, "bound of the LSTM projections")

    flag = group("training")
    flag("--batch_size", positive_int, 128, "rows per process and pass; lower it when memory is short")
    flag("--accumulate", positive_int, 1, "passes per step: equals an N times larger batch in the memory of one")
    flag("--num_steps", positive_int, 20, "words per row and pass; gradients reach back this far")
    flag("--max_epoch", positive, 10.0, "stop after so many passes over the text; fractions are fine")
    flag("--optim", str, "adagrad", "optimizer; rprop is the old name of rmsprop",
         choices=["adagrad", "adam", "sgd", "rmsprop", "rprop"])  # fmt: skip
    flag("--learning_rate", positive, 0.2, "0.2 is adagrad's; on news adam did best with 0.002, rmsprop with 0.001 "
         "(docs/recipes.md)")  # fmt: skip
    flag("--lr_schedule", str, "constant", "linear: the learning rate falls to zero over the run",
         choices=["constant", "linear"])  # fmt: skip
    flag("--reset_states", share, 0.1, "each row starts a step from a zero LSTM state with this probability; "
         "0: never, as the original")  # fmt: skip
    flag("--max_grad_norm", positive, 10.0, "gradients are scaled down to this global norm")
    flag("--dropout", share, 0.1, "dropped at each layer's input and at the top; more for a small corpus")
    flag("--sample_softmax", boolean, False, "train on sampled words: much faster with a large vocabulary", **SWITCH)
    flag(
        "--n_negative_samples_batch", positive_int, 8000, "sampled words per step and direction; with --sample_softmax"
    )
    flag("--use_gpu", boolean, None, "default: use a GPU if there is one", **SWITCH)

    flag = group("output and checkpoints")
    flag("--para_save_dir", str, "checkpoints", "folder of this run: checkpoints, log/ with metrics.jsonl and VisualDL")
    flag("--log_interval", positive_int, 100, "steps between two lines of figures")
    flag("--dev_interval", positive_int, 10000, "steps between two evaluations; one more is made at the end")
    flag("--save_interval", positive_int, 10000, "steps between two checkpoints; one more is made at the end")
    flag("--keep", positive_int, 3, "so many of the newest checkpoints stay, besides the best one")
    flag("--visualdl_embeddings", whole_number, 0, "show the vectors of so many frequent words in VisualDL at the end")
    flag("--load_dir", str, "", "go on exactly from this checkpoint; auto: from the newest in --para_save_dir, if any")
    flag("--load_pretraining_params", str, "", "start a new run from these weights: a checkpoint or a Fluid folder")

    retired = parser.add_argument_group("flags of the original that are read and ignored")
    for name, reason in RETIRED.items():
        retired.add_argument(name, nargs="?", const=True, help=reason)
    return parser


def parse(
    parser: argparse.ArgumentParser, retired: Dict[str, str], arguments: List[str]
) -> Tuple[argparse.Namespace, List[str], List[str]]:
    """Return the options, the names of those given on the command line, and a line for each retired flag."""
    options = parser.parse_args(arguments)
    for action in parser._actions:  # a second pass without defaults tells what was given
        action.default = argparse.SUPPRESS
    given = list(vars(parser.parse_args(arguments)))
    notes = [f"{name} has no effect: {reason}" for name, reason in retired.items() if name[2:] in given]
    for name in retired:
        delattr(options, name[2:])
    return options, given, notes


def checked_flags(parser: argparse.ArgumentParser, saved: object, where: object) -> dict:
    """Return the flags of a checkpoint after looking at each as if it had been typed.

    Args:
        where: what to call the checkpoint in messages.

    Raises:
        OptionError: one of them is none that could have been given.
    """
    if not isinstance(saved, dict):
        raise OptionError(f"{where}: its flags are {saved!r:.60}")
    for action in parser._actions:
        value = saved.get(action.dest, action.default)
        if value == action.default:
            continue
        try:
            for each in value if action.nargs == "+" else [value]:
                if type(each) not in (str, bool, int, float):
                    raise TypeError
                typed = parser._get_value(action, str(each))
                parser._check_value(action, typed)
                if typed != each:
                    raise TypeError
        except (argparse.ArgumentError, TypeError):
            raise OptionError(f"{where}: it was saved with --{action.dest} {value!r:.60}, which cannot be")
    return saved


def take_saved(
    options: argparse.Namespace, given: List[str], saved: dict, sizes: Sequence[str], own: Sequence[str]
) -> Optional[str]:
    """Fill what was not given on the command line from a checkpoint's flags.

    Args:
        saved: see `checked_flags`.
        sizes: flags that must be the checkpoint's. own: flags that a checkpoint has no say in.

    Returns:
        a line that names what the command line changed, None if nothing.

    Raises:
        OptionError: a size was given that is not the checkpoint's.
    """
    changed = []
    for name, value in saved.items():
        if name in own:
            continue
        if name not in given:
            setattr(options, name, value)
        elif getattr(options, name) != value:
            if name in sizes:
                raise OptionError(
                    f"--{name} is {getattr(options, name)}, but the checkpoint's is {value}; leave it out"
                )
            changed.append(f"{name} {value} → {getattr(options, name)}")
    return "changed on the command line: " + ", ".join(changed) if changed else None
