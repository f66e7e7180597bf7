"""How a command ends: its work done, or with one line that says what is wrong and a code that is not 0."""

import contextlib
import os
import sys
import traceback
from typing import Iterator, NoReturn

from elmo_chinese.console import drop_messages, shown, to_nowhere

# What a command ends with that failed as nobody expected: run.sh starts such a run again, see MAX_RESTART.
UNEXPECTED = 70


class UserError(Exception):
    """What a command ends with instead of a traceback; the message says what is wrong, where, and what to do.

    Attributes:
        code: what the command ends with.
    """

    code = 1


class OptionError(UserError, ValueError):
    """A flag that cannot be used as given; the message says what to do."""


def fail(error: object, code: int = 1) -> NoReturn:
    """End the program with a message instead of a traceback, after its name as it was typed."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)  # of `python -m lac.predict`; None of a file
    name = spec.name.replace(".__main__", "") if spec else sys.argv[0].rsplit("/", 1)[-1]
    try:
        print(f"{name}: error: {error}", file=sys.stderr, flush=True)
    except OSError:  # nobody can be told but by the code
        to_nowhere(2)
    sys.exit(code)


@contextlib.contextmanager
def command(output: str = "", stopped: str = "interrupted", prints_result: bool = False) -> Iterator[None]:
    """Run a command in this block; whatever a user, a disk or a terminal may do to it ends it with one line.

    Args:
        output: what is written, for failures that do not say where. stopped: what to say on Ctrl-C.
        prints_result: what is made goes to standard output: whoever reads it may leave early, and without it there is
            nothing to do. Else only messages go there; without them the work is done all the same (`drop_messages`).
    """
    if prints_result and sys.stdout is None:
        fail("standard output is closed, and the result would go there")
    _fill_closed_streams()
    before = os.fstat(1)
    try:
        with shown():
            yield
        sys.stdout.flush()
    except UserError as error:
        with contextlib.suppress(OSError):
            sys.stdout.flush()  # what was printed stands before the message
        fail(error, error.code)
    except ModuleNotFoundError as error:
        fail(
            f"{error.name} is not installed; in the clone: pip install -r requirements-cpu.txt, where the package is "
            'installed: pip install "/path/to/the/clone[cpu,visualdl]"'
        )
    except ImportError as error:  # it is there, and does not load
        fail(error)
    except KeyboardInterrupt:
        fail(stopped)
    except MemoryError:
        fail("out of memory", UNEXPECTED)
    except OSError as error:
        if type(error) is OSError and error.errno is None:  # Paddle's name for what CUDA and NCCL report
            _fail_unexpectedly()
        if error.filename or not prints_result:
            where = error.filename or output
            fail(f"cannot write {where}: {error.strerror or error}" if where else error)
        drop_messages()  # what is not yet written, or Python would complain on its way out
        if not isinstance(error, BrokenPipeError):
            fail(f"cannot write to standard output: {error.strerror or error}")
    except Exception:
        _fail_unexpectedly()
    if not prints_result and not os.path.samestat(os.fstat(1), before):
        fail("the work is done, but its messages could not all be written to standard output")


def _fail_unexpectedly() -> NoReturn:
    traceback.print_exc()
    sys.exit(UNEXPECTED)


def _fill_closed_streams() -> None:
    """Open what the caller closed (`>&-`) on nothing, or the next file that is opened would get what is printed."""
    while True:
        number = os.open(os.devnull, os.O_RDWR)
        if number > 2:
            os.close(number)
            break
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
