"""elmo_chinese/command.py: whatever is done to a program's streams, it ends with its work or with one line."""

import itertools
import os
import random
import signal
import subprocess
import sys
import time

from elmo_chinese.command import UNEXPECTED, command

import pytest
from conftest import ROOT

# A command that writes a file, tells about it, and prints a result; without Paddle, so that it starts at once.
PROGRAM = """
import sys
from elmo_chinese.command import command
from elmo_chinese.console import say
from elmo_chinese.training.flags import Parser
from elmo_chinese.text.reading import read_stdin
prints_result, path = sys.argv[1] == "result", sys.argv[2]
Parser().parse_args([])
with command(path, prints_result=prints_result):
    lines = [line for block in read_stdin() for line in block]
    for _ in range(1000):
        if prints_result:
            sys.stdout.buffer.write(f"{len(lines)} × 行\\n".encode("utf-8"))
        else:
            say("× 行 →")
    with open(path, "w", encoding="utf-8") as file:
        file.write("done")
"""
STDIN = {"text": "<lines.txt", "empty": "</dev/null", "closed": "<&-"}
STDOUT = {"file": ">out.txt", "closed": ">&-", "full": ">/dev/full", "gone": "| true"}
STDERR = {"file": "2>err.txt", "closed": "2>&-", "full": "2>/dev/full"}
CODECS = ["utf-8", "latin-1", "ascii"]


def expected_code(stdin, stdout, result):
    if stdin == "closed" or (result and stdout in ("closed", "full")):
        return 1
    return 0 if result or stdout in ("file", "closed") else 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_random_streams(tmp_path):
    draw = random.Random(0)
    every = list(itertools.product(STDIN, STDOUT, STDERR, [True, False]))
    (tmp_path / "lines.txt").write_text("一\n二\n", encoding="utf-8")
    (tmp_path / "program.py").write_text(PROGRAM, encoding="utf-8")
    for stdin, stdout, stderr, result in draw.sample(every, 20):
        for name in ("out.txt", "err.txt", "made"):
            (tmp_path / name).unlink() if (tmp_path / name).exists() else None
        run = f"{sys.executable} program.py {'result' if result else 'work'} made {STDIN[stdin]} {STDERR[stderr]}"
        run = f"({run}; echo $? >code) {STDOUT[stdout]}"
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": draw.choice(CODECS)}
        environment["PYTHONUNBUFFERED"] = draw.choice(["", "1"])
        subprocess.run(["bash", "-c", run], cwd=tmp_path, env=environment, check=False, timeout=60)
        deadline = time.time() + 60
        while not (tmp_path / "code").exists() or not (tmp_path / "code").read_text(encoding="ascii"):
            assert time.time() < deadline
            time.sleep(0.01)
        what, code = (stdin, stdout, stderr, result), int((tmp_path / "code").read_text(encoding="ascii"))
        assert code == expected_code(stdin, stdout, result), what
        (tmp_path / "code").unlink()
        if stderr == "file":
            errors = (tmp_path / "err.txt").read_text(encoding="utf-8").splitlines()
            assert len(errors) == code and all("error: " in line for line in errors), (what, errors)
        if stdin != "closed" and not result:  # its messages never cost the work
            assert (tmp_path / "made").read_text(encoding="utf-8") == "done", what
        if stdout == "file" and result and code == 0:
            line = f"{2 if stdin == 'text' else 0} × 行\n"
            assert (tmp_path / "out.txt").read_text(encoding="utf-8") == line * 1000, what


WAITS = """
import signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite in the background has it ignored
from elmo_chinese.command import command
with command(stopped="stopped; nothing was made"):
    print("ready", flush=True)
    time.sleep(60)
"""


def test_ctrl_c_is_one_line():
    process = subprocess.Popen(
        [sys.executable, "-c", WAITS], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1 and errors == "-c: error: stopped; nothing was made\n"


@pytest.mark.parametrize(
    "body, message",
    [
        ("raise InputError('a.txt: wrong')", "a.txt: wrong"),
        ("import no_such_module", "no_such_module is not installed; in the clone: pip install -r requirements-cpu.txt"),
        ("from json import no_such_name", "error: cannot import name 'no_such_name'"),
        ("open('/nowhere/file', 'w')", "cannot write /nowhere/file: No such file or directory"),
        ("raise OSError(28, 'No space left on device')", "cannot write out: No space left on device"),
    ],
)
def test_failures_say_where(body, message):
    code = "from elmo_chinese.command import command\n"
    code += "from elmo_chinese.text.reading import InputError\nwith command('out'):\n "
    done = subprocess.run([sys.executable, "-c", code + body], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("-c: error: ") and message in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "error, shown",
    [
        (KeyError("x"), "Traceback"),
        (OSError("(External) NCCL error(1), unhandled cuda error."), "Traceback"),  # Paddle's name for those of cards
        (MemoryError(), "error: out of memory\n"),
    ],
)
def test_what_nobody_expected_has_a_code_of_its_own_so_that_a_run_is_started_again(error, shown, capsys):
    with pytest.raises(SystemExit) as stopped:
        with command("out"):
            raise error
    assert stopped.value.code == UNEXPECTED != 1 and shown in capsys.readouterr().err


@pytest.mark.parametrize(
    "typed, name",
    [(["-m", "tools.guess"], "tools.guess"), (["-m", "tools"], "tools"), (["tools/guess.py"], "guess.py")],
)
def test_a_failure_starts_with_the_program_as_it_was_typed(tmp_path, typed, name):
    (tmp_path / "tools").mkdir()
    for file in ("__main__.py", "guess.py"):
        text = "from elmo_chinese.command import fail\nfail('wrong')\n"
        (tmp_path / "tools" / file).write_text(text, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, *typed], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stderr == f"{name}: error: wrong\n"
