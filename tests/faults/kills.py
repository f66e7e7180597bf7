"""Processes that are killed: the run goes on, and nothing of it is lost or there twice."""

import os
import random
import signal
import socket
import subprocess
import sys
import time

from elmo_chinese.training.metrics import read_metrics

import pytest
from conftest import ROOT
from test_bystanders import COMMANDS, contents, lay, materials, placed  # noqa: F401
from test_train import SMALL, assert_same_run, figures, last, start

TRIES = 20
# 480 steps, a line of figures for each, a checkpoint for every other one, 48 evaluations.
RUN = [*SMALL, "--batch_size", "8", "--max_epoch", "60", "--log_interval", "1", "--save_interval", "2", "--keep", "3"]
# Ends its process with SIGKILL before the so-manieth time that something of a checkpoint is opened, renamed, removed …
KILL_WHILE_SAVING = """
import os, signal, sys
left, folder = int(sys.argv[1]), sys.argv[2]
def watch(event, arguments):
    global left
    path = str(arguments[0]) if arguments else ""
    if event in ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir") and path.startswith(folder):
        if any(part.startswith(("step_", "latest", "best")) for part in path[len(folder):].split(os.sep)):
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
import train
sys.addaudithook(watch)
train.main(sys.argv[3:])
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The flags of the run, and its folder after nothing disturbed it."""
    folder = tmp_path_factory.mktemp("whole")
    arguments = [*RUN, "--cache_dir", str(folder / "cache"), "--load_dir", "auto"]
    ended(start([*arguments, "--para_save_dir", folder / "run"]))
    return arguments, folder / "run"


def ended(process, code=0):
    """Wait for a process; return what it printed."""
    output = process.communicate(timeout=1800)[0]
    assert process.returncode == code, output
    return output


def step_of(root):
    """Return the last step in `metrics.jsonl`, 0 if there is none."""
    try:
        return read_metrics(root / "log" / "metrics.jsonl")[-1]["step"]
    except (OSError, IndexError):
        return 0


def wait_for(condition, process, seconds=600):
    deadline = time.time() + seconds
    while not condition():
        assert process.poll() is None and time.time() < deadline, process.communicate()[0]
        time.sleep(0.005)


def test_killed_at_random_moments(whole, tmp_path, record_property):
    arguments, undisturbed = whole
    root, draw, steps = tmp_path / "run", random.Random(7), []
    for _ in range(TRIES):
        process = start([*arguments, "--para_save_dir", root])
        until = min(step_of(root) + draw.randint(2, 20), 450)
        wait_for(lambda until=until: step_of(root) >= until, process)
        time.sleep(draw.uniform(0, 0.03))
        process.kill()
        process.communicate()
        steps.append(step_of(root))
    assert steps[-1] < 480
    ended(start([*arguments, "--para_save_dir", root]))
    assert_same_run(undisturbed, root)
    outcome = f"joined metrics ({len(figures(root))} records) and parameters equal an undisturbed run's to the last bit"
    record_property("fault", ("`kill -9` at a random moment of training", TRIES, outcome))


def test_killed_in_the_middle_of_saving(whole, tmp_path, record_property):
    arguments, undisturbed = whole
    root, draw, half = tmp_path / "run", random.Random(8), 0
    for _ in range(TRIES):
        command = [sys.executable, "-c", KILL_WHILE_SAVING, str(draw.randint(1, 120)), str(root)]
        done = subprocess.run([*command, *arguments, "--para_save_dir", str(root)], cwd=ROOT, capture_output=True)
        assert done.returncode == -signal.SIGKILL, done.stdout.decode() + done.stderr.decode()
        half += any(root.glob("*.tmp"))
    assert half > TRIES // 4  # else it was not in the middle
    ended(start([*arguments, "--para_save_dir", root]))
    assert_same_run(undisturbed, root)
    outcome = f"the same; {half} times half a checkpoint was left, which the next start does not take for one"
    record_property("fault", ("`kill -9` while a checkpoint is written", TRIES, outcome))


# --- two processes ---


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_two(arguments):
    """Start two processes of one run without a launcher, which would end one when the other is gone."""
    endpoints = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    common = {"PADDLE_TRAINERS_NUM": "2", "PADDLE_TRAINER_ENDPOINTS": ",".join(endpoints), "PADDLE_LOCAL_SIZE": "2"}
    common.update(PADDLE_MASTER=f"127.0.0.1:{free_port()}", PADDLE_DISTRI_BACKEND="gloo", GLOG_minloglevel="2")
    return [
        subprocess.Popen(
            [sys.executable, "train.py", *arguments],
            cwd=ROOT,
            env={**os.environ, **common, "PADDLE_TRAINER_ID": str(rank), "PADDLE_CURRENT_ENDPOINT": endpoint},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank, endpoint in enumerate(endpoints)
    ]


TWO = [*RUN, "--batch_size", "4", "--save_interval", "10"]


@pytest.mark.parametrize("victim", [0, 1])
def test_the_other_one_ends_with_an_error(tmp_path, record_property, victim):
    root = tmp_path / "run"
    both = start_two([*TWO, "--cache_dir", str(tmp_path / "cache"), "--para_save_dir", str(root)])
    try:
        wait_for(lambda: step_of(root) > 20, both[0])
        both[victim].kill()
        moment = time.time()
        output = both[1 - victim].communicate(timeout=30)[0]
        seconds = time.time() - moment
    finally:
        for process in both:
            process.kill()
    assert both[1 - victim].returncode not in (0, 1)
    assert "gloo" in output  # which says in several ways that the connection is lost
    outcome = f"the other one ends after {seconds:.1f} s with status {both[1 - victim].returncode} and gloo's message"
    record_property("fault", (f"process {victim} of two killed, no launcher", 1, outcome))


def process_of(rank, root):
    """Return the id of the process of a rank that trains into a folder."""
    for entry in os.listdir("/proc"):
        try:
            with open(f"/proc/{entry}/cmdline", "rb") as file:
                command = file.read()
            with open(f"/proc/{entry}/environ", "rb") as file:
                environment = file.read()
        except OSError:
            continue
        launcher = b"paddle.distributed.launch" in command
        if not launcher and os.fsencode(str(root)) in command and b"PADDLE_TRAINER_ID=%d\0" % rank in environment:
            return int(entry)
    raise AssertionError(f"no process of rank {rank}")


def gone(process):
    try:
        os.kill(process, 0)
        return False
    except ProcessLookupError:
        return True


def run_sh(arguments, root, **environment):
    return subprocess.Popen(
        ["sh", "run.sh", *arguments, "--para_save_dir", str(root)],
        cwd=ROOT,
        env={**os.environ, "PYTHON": sys.executable, "CPU_NUM": "2", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    )


@pytest.fixture(scope="module")
def whole_of_two(tmp_path_factory):
    """Flags and folder of a run of two processes that nothing disturbed."""
    folder = tmp_path_factory.mktemp("two")
    arguments = [*TWO, "--cache_dir", str(folder / "cache")]
    ended(run_sh(arguments, folder / "run"))
    return arguments, folder / "run"


@pytest.mark.parametrize("victim", [0, 1])
def test_the_restart_option_brings_the_run_back(whole_of_two, tmp_path, record_property, victim):
    arguments, undisturbed = whole_of_two
    root = tmp_path / "run"
    process = run_sh(arguments, root, MAX_RESTART="1")
    wait_for(lambda: step_of(root) > 20, process)
    both = [process_of(rank, root) for rank in (0, 1)]
    os.kill(both[victim], signal.SIGKILL)
    moment = time.time()
    wait_for(lambda: gone(both[1 - victim]), process, seconds=30)
    seconds = time.time() - moment
    assert "a process was lost" in ended(process)
    assert_same_run(undisturbed, root)
    outcome = f"the other one is gone after {seconds:.1f} s, the run goes on and ends like an undisturbed one"
    record_property("fault", (f"process {victim} of two killed, `MAX_RESTART=1 sh run.sh`", 1, outcome))
    assert last(root).info["step"] == last(undisturbed).info["step"]


# --- among files of others ---

# Runs a command of test_bystanders.py and ends at once, without any clean-up, at the so-manieth rename or deletion.
AT_A_RENAME = """
import os, signal, sys
name, at, output, *materials = sys.argv[1:]
from test_bystanders import COMMANDS
left = int(at)
def hook(event, arguments):
    global left
    if event in ("os.rename", "os.remove", "os.rmdir"):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
command, known = COMMANDS[name], dict(zip(materials[::2], materials[1::2]))
sys.addaudithook(hook)
command.main([*(str(known.get(argument, argument)) for argument in command.arguments), output])
"""


@pytest.mark.parametrize("name", COMMANDS)
def test_killed_among_what_others_have_left(tmp_path, request, record_property, name):
    known = [str(part) for pair in request.getfixturevalue("materials").items() for part in pair]
    command, output = COMMANDS[name], tmp_path / COMMANDS[name].output
    for path in placed(output, command):
        lay(path)
    before, kills = contents(tmp_path), 0
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    for at in (1, 2, 4, 1000):
        arguments = [sys.executable, "-c", AT_A_RENAME, name, str(at), str(output), *known]
        done = subprocess.run(arguments, cwd=tmp_path, env=environment, capture_output=True, text=True)
        kills += done.returncode == -signal.SIGKILL
        after = contents(tmp_path)
        assert [path for path, content in before.items() if after.get(path, "gone") != content] == [], done.stderr
    assert kills, done.stderr
    outcome = f"{len(before)} files of others are as they were, before, after and when it is run again"
    record_property("fault", (f"`{name}` killed at a rename or deletion", kills, outcome))
