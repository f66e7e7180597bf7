"""Flags: how they are declared, typed, read, and taken over from the checkpoint that a run resumes from."""

import argparse
import sys
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

from elmo_chinese.command import OptionError

# What a flag is to the checkpoint that a run resumes from.
FIXED = "fixed"  # a size of the network: the checkpoint only fits its own value
MADE = "made"  # what the model was made from, which the checkpoint brings along: another would be without effect
FREE = "free"  # the checkpoint's value, unless another is given
OWN = "own"  # the checkpoint has no say in it

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


class Flag(NamedTuple):
    """A flag of a training program.

    Attributes:
        type: function of what is typed → value. choices: the values that it may have, None: any.
        default: its value if it is not given. several: whether it takes a list.
        resume: `FIXED`, `MADE`, `FREE` or `OWN`. compared: whether VisualDL compares runs by it.
    """

    type: Callable[[str], Any]
    choices: Optional[Sequence[str]]
    default: Any
    several: bool
    resume: str
    compared: bool


class TrainingParser(Parser):
    """The parser of a training program: each flag is declared once, with all that is to be known of it.

    Args:
        program: its name. description: the head of its help.

    Attributes:
        flags: by name, in the order of the help.
        retired: flags of the original that mean nothing any more, and what does their work now.
    """

    def __init__(self, program: str, description: str):
        super().__init__(
            prog=program,
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self.flags: Dict[str, Flag] = {}
        self.retired: Dict[str, str] = {}

    def group(self, title: str, resume: str = FREE, compared: bool = False) -> Callable[..., None]:
        """Return a function that adds a flag to a new group: `(names, type, default, help, resume, compared, **more)`.

        Args:
            resume, compared: of its flags, unless one says otherwise.
        """
        add, usual = self.add_argument_group(title).add_argument, (resume, compared)

        def flag(names: str, type, default, help: str, resume=usual[0], compared=usual[1], **more) -> None:
            shown = "" if default in (None, "", []) else f" (default: {default})"
            name = add(*names.split(), type=type, default=default, help=help + shown, **more).dest
            several = more.get("nargs") == "+"
            self.flags[name] = Flag(type, more.get("choices"), default, several, resume, compared)

        return flag

    def retire(self, reasons: Dict[str, str]) -> None:
        """Add flags that are read and ignored, each with what does its work now."""
        self.retired = reasons
        group = self.add_argument_group("flags of the original that are read and ignored")
        for name, reason in reasons.items():
            group.add_argument(name, nargs="*", help=reason)

    def parse(self, arguments: List[str]) -> Tuple[argparse.Namespace, List[str], List[str]]:
        """Return the options, the names of those given on the command line, and a line for each retired flag.

        Flags before `--` are defaults of whoever starts the program, a shell script say: nobody gave them.
        """
        absent = object()
        names = [*self.flags, *(name[2:] for name in self.retired)]

        def typed(arguments):
            found = vars(self.parse_args(arguments, argparse.Namespace(**dict.fromkeys(names, absent))))
            return {name: value for name, value in found.items() if value is not absent}

        defaults = {name: flag.default for name, flag in self.flags.items()}
        if "--" in arguments:
            defaults.update(typed(arguments[: arguments.index("--")]))
            arguments = arguments[arguments.index("--") + 1 :]
        found = typed(arguments)
        given = [name for name in names if name in found]
        notes = [f"{name} has no effect: {reason}" for name, reason in self.retired.items() if name[2:] in given]
        values = {name: found.get(name, default) for name, default in defaults.items()}
        return argparse.Namespace(**values), given, notes

    def names(self, resume: str) -> List[str]:
        """Return the names of the flags that are this to a checkpoint."""
        return [name for name, flag in self.flags.items() if flag.resume == resume]

    def compared(self, options: argparse.Namespace) -> Dict[str, Any]:
        """Return the values of the flags that VisualDL compares runs by."""
        return {name: getattr(options, name) for name, flag in self.flags.items() if flag.compared}

    def take_saved(self, options: argparse.Namespace, given: List[str], saved: Any, where: object) -> Optional[str]:
        """Fill what was not given on the command line from a checkpoint's flags, looked at as if they had been typed.

        Args:
            saved: the flags of a checkpoint. where: what to call it in messages.

        Returns:
            a line that names what the command line changed, None if nothing.

        Raises:
            OptionError: one of them is none that could have been given; or a fixed or made one was given another value.
        """
        if not isinstance(saved, dict):
            raise OptionError(f"{where}: its flags are {saved!r:.60}")
        changed = []
        for name, flag in self.flags.items():
            if name not in saved or flag.resume == OWN:
                continue
            value = _checked(flag, name, saved[name], where)
            if name not in given:
                setattr(options, name, value)
            elif getattr(options, name) != value:
                if flag.resume in (FIXED, MADE):
                    raise OptionError(
                        f"--{name} is {getattr(options, name)!r}, but {where} has {value!r}; leave it out to go on, or "
                        "begin a new run in another folder"
                    )
                changed.append(f"{name} {value} → {getattr(options, name)}")
        return "changed on the command line: " + ", ".join(changed) if changed else None


def _checked(flag: Flag, name: str, value: Any, where: object) -> Any:
    """Return the value of a flag that stands in a checkpoint, as its type has it."""
    if value == flag.default:
        return value
    try:
        typed = [_retyped(flag, each) for each in (value if flag.several else [value])]
    except (argparse.ArgumentTypeError, TypeError, ValueError):
        raise OptionError(f"{where}: it was saved with --{name} {value!r:.60}, which cannot be")
    return typed if flag.several else typed[0]


def _retyped(flag: Flag, value: Any) -> Any:
    if type(value) not in (str, bool, int, float):
        raise TypeError
    typed = flag.type(str(value))
    # A string may be an old name of another string, and of nothing else.
    if typed != value and not type(value) is type(typed) is str or flag.choices and typed not in flag.choices:
        raise ValueError
    return typed


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
