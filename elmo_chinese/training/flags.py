"""Flags: how a program declares and reads them, and how a run that is resumed gets those of its checkpoint."""

import argparse
import sys
from typing import Any, Callable, Dict, List, Sequence, Set, Tuple

from elmo_chinese.command import OptionError
from elmo_chinese.console import say

# What a switch takes; `--shuffle` alone is `--shuffle true`.
SWITCH = dict(nargs="?", const=True, metavar="true|false")


class Parser(argparse.ArgumentParser):
    """A parser whose errors end with code 1; what its program prints never ends it, whatever the terminal can show."""

    def parse_known_args(self, args=None, namespace=None):
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        return super().parse_known_args(args, namespace)

    def error(self, message):
        self.exit(1, f"{self.prog}: error: {message}\n{self.prog} --help lists all flags\n")


class TrainingParser(Parser):
    """The parser of a training program. The first of these that says something decides on a flag:

    1. what is typed; 2. the checkpoint that the run resumes from; 3. what a script puts before `--`; 4. the default.

    Args:
        program: its name. description: the head of its help.
        of_model: flags that the model of a checkpoint was made from (its sizes, say): a resumed run cannot have others.
        of_start: flags of one start alone (folders, device, …), which no checkpoint decides.

    Attributes:
        defaults: value of each flag if nobody says anything, in the order of the help.
        retired: flags of the original that mean nothing any more, and what does their work now.
    """

    def __init__(self, program: str, description: str, of_model: Sequence[str], of_start: Sequence[str]):
        super().__init__(
            prog=program,
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            argument_default=argparse.SUPPRESS,  # so that a parsed namespace holds what was typed, and nothing else
            allow_abbrev=False,
        )
        self.of_model, self.of_start = tuple(of_model), tuple(of_start)
        self.defaults: Dict[str, Any] = {}
        self.retired: Dict[str, str] = {}
        self._named_values: Set[str] = set()  # flags whose values are words to choose from

    def error(self, message):
        raise OptionError(f"{message}; --help lists all flags")  # a program that calls this must not be ended

    def group(self, title: str) -> Callable[..., None]:
        """Return a function that adds a flag to a new group: `(names, type, default, help, **more of argparse)`."""
        add = self.add_argument_group(title).add_argument

        def flag(names: str, type: Callable[[str], Any], default: Any, help: str, **more) -> None:
            shown = "" if default in (None, "", []) else f" (default: {default})"
            name = add(*names.split(), type=type, help=help + shown, **more).dest
            self.defaults[name] = default
            if "choices" in more:
                self._named_values.add(name)

        return flag

    def retire(self, reasons: Dict[str, str]) -> None:
        """Add flags that are read and ignored, each with what does its work now."""
        self.retired = reasons
        group = self.add_argument_group("flags of the original that are read and ignored")
        for name, reason in reasons.items():
            group.add_argument(name, nargs="*", help=reason)

    def parse(
        self, arguments: List[str], saved: Any = None, where: object = None
    ) -> Tuple[argparse.Namespace, Set[str]]:
        """Return the options, and the names of the flags that were typed.

        Args:
            arguments: the command line; what stands before `--` are defaults of the script that starts the program.
            saved: the flags in the checkpoint that the run resumes from, None for a new run. What the command line
                changes of them is printed.
            where: what to call the checkpoint in messages.

        Raises:
            OptionError: a flag cannot be used as it is typed or saved, or one of `of_model` was typed with another
                value than the checkpoint's.
        """
        cut = arguments.index("--") if "--" in arguments else -1
        script, typed = (vars(self.parse_args(words)) for words in (arguments[: max(cut, 0)], arguments[cut + 1 :]))
        kept = {} if saved is None else self._read_saved(saved, where)
        changed = [name for name in typed if name in kept and typed[name] != kept[name]]
        for name in changed:
            if name in self.of_model:
                raise OptionError(
                    f"--{name} is {typed[name]!r}, but {where} has {kept[name]!r}; leave it out to go on, or begin a "
                    "new run in another folder"
                )
        if saved is None:
            for name in self.retired:
                if name[2:] in typed:
                    say(f"{name} has no effect: {self.retired[name]}")
        elif changed:
            say("changed on the command line: " + ", ".join(f"{name} {kept[name]} → {typed[name]}" for name in changed))
        values = {**self.defaults, **script, **kept, **typed}
        return argparse.Namespace(**{name: values[name] for name in self.defaults}), set(typed)

    def _read_saved(self, saved: Any, where: object) -> Dict[str, Any]:
        """Return a checkpoint's flags, each read as if it had been typed."""
        if not isinstance(saved, dict):
            raise OptionError(f"{where}: its flags are {saved!r:.60}")
        read = {name: saved[name] for name in self.defaults if name in saved and name not in self.of_start}
        for name, value in read.items():
            if value == self.defaults[name] and type(value) is type(self.defaults[name]):
                continue
            several = isinstance(self.defaults[name], list) and isinstance(value, list)
            words = [f"--{name}", *map(str, value)] if several else [f"--{name}={value}"]
            try:
                if any(type(each) not in (str, bool, int, float) for each in (value if several else [value])):
                    raise OptionError
                read[name] = vars(self.parse_args(words))[name]
                if several and len(read[name]) != len(value):
                    raise OptionError
                if isinstance(read[name], str) != isinstance(value, str):  # in JSON "8" is no number
                    raise OptionError
            except OptionError:
                raise OptionError(f"{where}: it was saved with --{name} {value!r:.60}, which cannot be")
        return read

    def compared(self, options: argparse.Namespace) -> Dict[str, Any]:
        """Return the values that VisualDL compares runs by: numbers, switches and choices."""
        return {
            name: value
            for name, value in vars(options).items()
            if name not in self.of_start and (type(value) in (bool, int, float) or name in self._named_values)
        }


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


def keep(text: str) -> str:
    return text if text == "all" else str(positive_int(text))
