"""setup.sh and run.sh: the environment, the launcher, stopping."""

import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time

from elmo_chinese.storage import checkpoint
from elmo_chinese.training.metrics import read_metrics

import pytest
from conftest import LM, ROOT

SMALL = [
    *("--train_path", str(LM / "train.txt"), "--test_path", str(LM / "dev.txt"), "--vocab_path", str(LM / "vocab.txt")),
    *("--embed_size", "8", "--hidden_size", "12", "--num_steps", "5", "--batch_size", "8"),
]


# A host whose name has no address, as in containers; what runs there is not root, wherever that is possible.
NOWHERE = ["unshare", "--map-root-user", "--uts", "sh", "-c", 'hostname nowhere && exec "$0" "$@"']
CAN_UNSHARE = shutil.which("unshare") and not subprocess.run([*NOWHERE, "true"], capture_output=True).returncode
ONE_CARD = "case $1 in -L) echo 'GPU 0: a card' ;; *index,compute_cap*) echo 0, 8.0 ;; *) echo 0 ;; esac\n"
SET_UP = "CDPATH=/; cd {0}; cp -r setup.sh scripts requirements*.txt {1}; cd {1}; . ./setup.sh; "


def shell(script, **environment):
    return subprocess.run(
        ["sh", "-c", script], cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120
    )


def stub(path, text):
    path.write_text("#!/bin/sh\n" + text, encoding="utf-8")
    path.chmod(0o755)
    return path


def test_set_up_is_quick_the_second_time():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    finished = shell(". ./setup.sh; echo $PYTHON", PYTHON=sys.executable)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert finished.stdout.strip() == sys.executable and after.ru_utime - before.ru_utime < 3  # 1 s to import Paddle


def test_an_unsupported_interpreter_is_named_with_the_range(tmp_path):
    old = stub(tmp_path / "python3.13", 'case $1 in --version) echo "Python 3.13.0" ;; *) exit 1 ;; esac\n')
    finished = shell("sh run.sh", PYTHON=str(old), PADDLE="")
    assert finished.returncode == 1
    assert "is Python 3.13.0, but Paddle 2.6.2 needs Python 3.8 to 3.12" in finished.stderr


def test_gpu_libraries_get_the_names_that_paddle_opens(tmp_path):
    stub(tmp_path / "nvidia-smi", ONE_CARD)
    stub(tmp_path / "ldconfig", "echo 'libcuda.so.1 (libc6,x86-64) => /driver/libcuda.so.1'\n")
    python = stub(tmp_path / "python", f'case "$*" in *purelib*) echo {tmp_path}/site ;; *) exit 0 ;; esac\n')
    script = SET_UP.format(ROOT, tmp_path) + "echo $LD_LIBRARY_PATH"
    environment = dict(PATH=f"{tmp_path}:{os.environ['PATH']}", PYTHON=str(python), PADDLE="")
    finished = shell(script, LD_LIBRARY_PATH="/mine", **environment)
    searched = finished.stdout.strip().split(":")
    nvidia = f"{tmp_path}/site/nvidia"
    assert searched[0] == f"{tmp_path}/.cuda_links" and searched[-1] == "/mine" and f"{nvidia}/cudnn/lib" in searched
    links = {path.name: os.readlink(path) for path in (tmp_path / ".cuda_links").glob("*.so")}
    assert links["libcudnn.so"] == f"{nvidia}/cudnn/lib/libcudnn.so.8"
    assert links["libcublasLt.so"] == f"{nvidia}/cublas/lib/libcublasLt.so.11"
    assert links["libcuda.so"] == "/driver/libcuda.so.1" and len(links) == 12
    # A name of the system is taken where Paddle's bare one is there, too; the others are still linked.
    there = "libcublas.so.11 libcublas.so libcudnn.so.8 libnccl.so"
    stub(tmp_path / "ldconfig", f"for name in {there}; do printf '\\t%s (libc6) => /lib/x\\n' $name; done\n")
    shell(script, LD_LIBRARY_PATH="/mine", **environment)
    links = {path.name: os.readlink(path) for path in (tmp_path / ".cuda_links").glob("*.so")}
    assert "libcublas.so" not in links and links["libcudnn.so"].endswith("libcudnn.so.8") and "libnccl.so" in links


@pytest.mark.parametrize("version, lacks, used", [
    ("2.6.1", "", True), ("2.6.2.post117", "", True), ("3.3.1", "", True), ("2.5.2", "", False), ("", "", False),
    ("3.3.1", "visualdl", False),
])  # fmt: skip
def test_a_paddle_for_gpus_of_ones_own_is_used_as_it_is(tmp_path, version, lacks, used):
    """Metadata of packages is all that is looked at, so some of it is enough."""
    packages = {"paddlepaddle-gpu": version, "numpy": "2.0", "jieba": "0.42.1", "visualdl": "2.5.3"}
    for name, its in packages.items():
        folder = tmp_path / "site" / f"{name.replace('-', '_')}-{its}.dist-info"
        if its and name != lacks:
            folder.mkdir(parents=True)
            (folder / "METADATA").write_text(f"Name: {name}\nVersion: {its}\n", encoding="utf-8")
    stub(tmp_path / "nvidia-smi", ONE_CARD)
    # -S keeps the packages of this environment out; pip is only written down.
    real = f"PYTHONPATH={tmp_path}/site exec {sys.executable} -S"
    cases = f'"-m pip "*) echo asked "$@" ;; "-m venv "*) mkdir -p $3/bin; cp $0 $3/bin/python ;; *) {real} "$@" ;;'
    cases = f"*device_count*) exit 0 ;; {cases}"
    python = stub(tmp_path / "python", f'case "$*" in {cases} esac\n')
    script = SET_UP.format(ROOT, tmp_path) + "echo $PYTHON"
    finished = shell(script, PATH=f"{tmp_path}:{os.environ['PATH']}", PYTHON=str(python), PADDLE="")
    assert (f"using paddlepaddle-gpu {version} of {python} as it is" in finished.stdout) == used, finished.stderr
    assert (finished.stdout.splitlines()[-1] == str(python)) == used and not (tmp_path / ".venv").exists()
    assert used or "was set up, but lacks" in finished.stderr  # pip here installs nothing
    assert (tmp_path / ".venv-gpu").exists() != used and not (tmp_path / ".cuda_links").exists()
    assert bool(lacks) == ("-m pip install visualdl" in finished.stderr)


@pytest.mark.parametrize("cards, visible, refused", [
    ("0, 8.9", None, False), ("0, 6.1\n1, 9.0", None, "card 1 has compute capability 9.0"), ("0, 6.0", None, "card 0"),
    ("0, 8.6\n1, 12.0", "0", False), ("0, 8.6\n1, 12.0", " 0, 1", "card 1 has compute capability 12.0"),
    ("[N/A], [N/A]", None, False), ("0, 9.0", "", False),
])  # fmt: skip
def test_a_card_that_the_wheel_has_no_kernels_for_is_refused(tmp_path, cards, visible, refused):
    listed = f"*compute_cap*) printf '{cards}\\n' ;; *) printf '{cards}\\n' | cut -d, -f1 ;;"
    stub(tmp_path / "nvidia-smi", f"case $1 in -L) echo 'GPU 0: a card' ;; {listed} esac\n")
    python = stub(tmp_path / "python", f'case "$*" in *purelib*) echo {tmp_path}/site ;; *) exit 0 ;; esac\n')
    script = SET_UP.format(ROOT, tmp_path) + "echo made"
    more = {} if visible is None else dict(CUDA_VISIBLE_DEVICES=visible)
    finished = shell(script, PATH=f"{tmp_path}:{os.environ['PATH']}", PYTHON=str(python), PADDLE="", **more)
    assert (finished.returncode == 0) == (not refused) and ("made" in finished.stdout) == (not refused)
    assert not refused or refused in finished.stderr


def test_another_paddle_has_an_environment_of_its_own(tmp_path):
    """The stub lacks everything; what it makes as an environment is a copy of it, and pip is only written down."""
    stub(tmp_path / "nvidia-smi", ONE_CARD)
    python = stub(
        tmp_path / "python",
        f"""case "$*" in
        "- "*) [ -e {tmp_path}/calls ] ;;
        *version_info*) echo 3.12 ;;
        "-m venv "*) mkdir -p $3/bin; cp {tmp_path}/python $3/bin ;;
        "-m pip "*) echo "$0" "$*" >>{tmp_path}/calls; cat "$6" >>{tmp_path}/asked ;;
        esac\n""",
    )
    script = SET_UP.format(ROOT, tmp_path) + "echo $PYTHON $GPU"
    finished = shell(script, PATH=f"{tmp_path}:{os.environ['PATH']}", PYTHON=str(python), PADDLE="3.3.1")
    assert finished.stdout.splitlines()[-1] == f"{tmp_path}/.venv-paddle-3.3.1/bin/python 0", finished.stderr
    assert not (tmp_path / ".venv").exists()
    assert (tmp_path / "calls").read_text(encoding="utf-8").startswith(".venv-paddle-3.3.1/bin/python -m pip install")
    asked = (tmp_path / "asked").read_text(encoding="utf-8")
    assert asked.startswith("paddlepaddle==3.3.1 ") and re.findall("^numpy[^;]*", asked, re.M) == ["numpy", "numpy"]
    pinned = [line for line in (ROOT / "requirements-cpu.txt").read_text(encoding="utf-8").splitlines() if "==" in line]
    assert len(asked.splitlines()) == len(pinned) and all(line in asked for line in pinned[3:])


def test_several_machines_need_an_address():
    finished = shell("sh run.sh", PYTHON=sys.executable, NNODES="2")
    assert finished.returncode != 0 and "needs MASTER=address:port" in finished.stderr


def losses(root):
    return [record["loss"] for record in read_metrics(root / "log" / "metrics.jsonl") if record["kind"] == "train"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has every 127.x.x.x as an address of its own")
def test_two_machines_give_the_losses_of_one_process(tmp_path):
    """Each launcher takes another loopback address as its machine's; see docs/several_machines.md."""
    flags = [*SMALL, "--max_epoch", "2", "--log_interval", "1", "--cache_dir", str(tmp_path / "cache")]
    flags += [
        "--dropout",
        "0.2",
        "--shuffle",
        "true",
        "--learning_rate",
        "0.4",
        "--lr_schedule",
        "linear",
    ]  # as run.sh says without a GPU
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        master = f"127.0.0.1:{free.getsockname()[1]}"
    machines = []
    for rank, address in enumerate(["127.0.0.1", "127.0.0.2"]):
        environment = dict(PYTHON=sys.executable, NNODES="2", MASTER=master, RANK=str(rank), POD_IP=address)
        command = ["sh", "run.sh", *flags, "--batch_size", "4", "--para_save_dir", str(tmp_path / "two")]
        more = dict(env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        machines.append(subprocess.Popen(command, cwd=ROOT, **more))
    command = [sys.executable, "train.py", *flags, "--batch_size", "8", "--para_save_dir", str(tmp_path / "one")]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    printed = [machine.communicate(timeout=120)[0] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], printed
    assert "devices     2 × cpu" in printed[0]
    assert len(losses(tmp_path / "one")) > 5
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-5)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_run_sh_trains_stops_with_exit_code_0_and_goes_on(tmp_path, number):
    command = ["sh", "run.sh", *SMALL, "--para_save_dir", str(tmp_path / "run"), "--cache_dir", str(tmp_path / "cache")]
    command += ["--max_epoch", "200", "--save_interval", "5", "--log_interval", "5", "--test_path", ""]
    processes = 1
    if number == signal.SIGTERM and CAN_UNSHARE:  # processes find each other all the same
        command, processes = [*NOWHERE, *command], 2
    environment = {**os.environ, "PYTHON": sys.executable, "CPU_NUM": str(processes)}
    more = dict(cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    process = subprocess.Popen(command, start_new_session=True, **more)
    deadline = time.time() + 60
    while not checkpoint.step_folder(tmp_path / "run", 10).exists():
        assert process.poll() is None and time.time() < deadline
        time.sleep(0.02)
    process.send_signal(number)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 0, printed
    assert "training a small model on CPU" in printed.splitlines()[0] and "asked to stop: saved step" in printed
    assert checkpoint.load_newest(tmp_path / "run")[0].info["rows"] == 8 * processes
    finished = subprocess.run([*command, "--max_epoch", "1", "--log_interval", "1"], stderr=subprocess.PIPE, **more)
    assert "resuming from" in finished.stdout and finished.returncode == 0


def stand_in(tmp_path, launcher, gpu=0, cards=2):
    """Return the command of a run.sh whose interpreter has everything, and does these lines as the launcher."""
    others = 'case "$*" in *paddle.distributed.launch*) ;; *) exit 0 ;; esac'
    python = stub(tmp_path / "python", f"{others}\n{launcher}\n")
    stub(tmp_path / "ldconfig", "echo libcublas.so.11; echo libcudnn.so.8\n")
    listed = "echo GPU 0: a card" if gpu else ":"
    count = f"for card in $(seq 0 {cards - 1}); do echo $card; done"
    stub(tmp_path / "nvidia-smi", f"case $1 in -L) {listed} ;; *compute_cap*) ;; *) {count} ;; esac\n")
    for name in ("run.sh", "setup.sh", "lac/run.sh", "mrc/run.sh", "scripts/cards.sh", "scripts/launch.sh"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "data" / "train", tmp_path / "data" / "train", dirs_exist_ok=True)
    return f"env PATH={tmp_path}:$PATH PYTHON={python} PADDLE= sh {tmp_path}/run.sh"


def looks(tmp_path, says="", then=":"):
    """Return a launcher that writes down what it is asked, wants an empty folder of logs, and logs a line."""
    return f"""echo "$*" "cards=${{CUDA_VISIBLE_DEVICES-unset}}" > {tmp_path}/asked
    while [ $# -gt 1 ]; do [ "$1" != --log_dir ] || logs=$2; shift; done
    [ ! -e "$logs"/* ] || exit 9
    echo "{says}" > "$logs/workerlog.0"; echo "$logs" > {tmp_path}/logs; {then}"""


@pytest.mark.parametrize("ends, restarts, calls, code", [
    ([247, 250, 0], 3, 3, 0),  # lost, lost, trained
    ([247, 250, 0], 1, 2, 250),
    ([247, 0], "", 1, 247),
    ([70, 0], 3, 2, 0),  # what nobody expected: CUDA, NCCL, memory
    ([1, 0], 3, 1, 1),  # train.py said what is wrong
])  # fmt: skip
def test_a_lost_process_is_started_again_so_often(tmp_path, ends, restarts, calls, code):
    ending = f"echo >> {tmp_path}/calls; exit $(sed -n $(wc -l < {tmp_path}/calls)p {tmp_path}/ends)"
    (tmp_path / "ends").write_text("".join(f"{end}\n" for end in ends), encoding="utf-8")
    finished = shell(stand_in(tmp_path, ending), MAX_RESTART=str(restarts))
    assert finished.returncode == code and len((tmp_path / "calls").read_text(encoding="utf-8")) == calls
    assert finished.stderr.count("a process was lost") == calls - 1


@pytest.mark.parametrize("task", ["lac", "mrc"])
def test_a_task_is_trained_with_the_newest_bilm_by_so_many_processes(tmp_path, task):
    (tmp_path / f"{task}_model_baseline").mkdir()
    script = stand_in(tmp_path, looks(tmp_path)).replace("/run.sh", f"/{task}/run.sh")
    finished = shell(script)
    assert finished.returncode == 1 and finished.stderr.endswith("no biLM in checkpoints/ yet; first: sh run.sh\n")
    finished = shell(script, ELMO="", CPU_NUM="2", CUDA_VISIBLE_DEVICES="0")  # there is none
    asked = (tmp_path / "asked").read_text(encoding="utf-8")
    assert (
        f"-m {task}.train --pretrain_elmo_model_path  --load_dir auto --model_save_dir {task}_model_baseline" in asked
    )
    assert finished.returncode == 0 and "--nproc_per_node 2" in asked and "cards=unset" in asked
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "latest").write_text("step_00000007\n", encoding="utf-8")
    shell(script, CPU_NUM="2")
    assert "_path checkpoints --load_dir" in (tmp_path / "asked").read_text(encoding="utf-8")


@pytest.mark.parametrize("task", ["lac", "mrc"])
@pytest.mark.parametrize(
    "typed", ["--model_save_dir {}", "--model_save_dir={}", "--model_save_dir x --model_save_dir {}"]
)
def test_what_is_scored_is_what_was_trained(tmp_path, task, typed):
    mine = tmp_path / "mine"
    mine.mkdir()
    script = stand_in(tmp_path, ":").replace("/run.sh", f"/{task}/run.sh")
    stub(tmp_path / "python", f'echo "$*" >> {tmp_path}/calls')
    finished = shell(f"{script} {typed.format(mine)}", ELMO="")
    assert finished.returncode == 0, finished.stderr
    calls = (tmp_path / "calls").read_text(encoding="utf-8").splitlines()
    scored = [call for call in calls if "evaluate" in call or "predict" in call]
    assert len(scored) >= 2 and not any("_model_baseline" in call for call in scored)
    assert all(f"--model {mine}" in call for call in scored if "--model" in call)


def test_each_run_has_an_empty_folder_of_logs_also_where_the_project_cannot_be_written(tmp_path):
    script = stand_in(tmp_path, looks(tmp_path))
    folders = set()
    for _ in range(2):
        assert shell(script).returncode == 0
        folders.add((tmp_path / "logs").read_text(encoding="utf-8").strip())
    assert len(folders) == 2 and all(folder.startswith("log/machine_0_") for folder in folders)
    subprocess.run(["rm", "-r", tmp_path / "log"], check=True)
    (tmp_path / "log").write_text("in the way", encoding="utf-8")
    assert shell(script).returncode == 0
    elsewhere = (tmp_path / "logs").read_text(encoding="utf-8").strip()
    assert os.path.isdir(elsewhere) and not elsewhere.startswith(("log", str(tmp_path)))


@pytest.mark.parametrize("says, code", [("asked to stop: saved step 7; go on", 0), ("devices 1 × cpu", 15)])
def test_a_stop_is_a_success_only_where_something_was_saved(tmp_path, says, code):
    script = stand_in(tmp_path, looks(tmp_path, says, "trap 'exit 15' TERM; while :; do sleep 0.1; done"))
    process = subprocess.Popen(["sh", "-c", f"exec {script}"], stderr=subprocess.PIPE, text=True)
    deadline = time.time() + 30
    while not (tmp_path / "logs").exists():
        assert time.time() < deadline
        time.sleep(0.02)
    process.terminate()
    _, errors = process.communicate(timeout=30)
    assert process.returncode == code and ("stopped before anything was saved" in errors) == (code != 0)


@pytest.mark.parametrize("cards, gpu, devices, left", [
    ("0, 1", 1, "--devices 0,1 ", "0,1"),
    ("0,1,", 1, "--devices 0,1 ", "0,1"),
    ("all", 1, "--devices 0,1 ", "0,1"),
    ("1", 1, "--devices 1 ", "1"),
    ("3", 0, "--nproc_per_node 1 ", "unset"),
])  # fmt: skip
def test_cards_may_be_written_in_any_way(tmp_path, cards, gpu, devices, left):
    finished = shell(stand_in(tmp_path, looks(tmp_path), gpu), CUDA_VISIBLE_DEVICES=cards)
    asked = (tmp_path / "asked").read_text(encoding="utf-8")
    assert finished.returncode == 0 and devices in asked and asked.strip().endswith(f"cards={left}"), finished.stderr


@pytest.mark.parametrize("cards, gpu", [("", 0), ("-1", 0), ("NoDevFiles", 0), ("0", 1), (None, 1)])
def test_cards_that_are_hidden_are_not_used(tmp_path, cards, gpu):
    stub(tmp_path / "nvidia-smi", ONE_CARD)
    stub(tmp_path / "ldconfig", "echo libcublas.so.11; echo libcudnn.so.8\n")
    python = stub(tmp_path / "python", "exit 0\n")
    script = SET_UP.format(ROOT, tmp_path) + "echo GPU=$GPU cards=${CUDA_VISIBLE_DEVICES-unset}"
    environment = dict(PATH=f"{tmp_path}:{os.environ['PATH']}", PYTHON=str(python), PADDLE="")
    finished = shell(script, **environment, **({} if cards is None else {"CUDA_VISIBLE_DEVICES": cards}))
    left = "unset" if cards is None else cards  # hidden ones stay hidden
    assert finished.stdout.splitlines()[-1] == f"GPU={gpu} cards={left}", finished.stderr


def test_a_lost_card_is_none(tmp_path):
    stub(tmp_path / "nvidia-smi", "echo 'Unable to determine the device handle for GPU 0: GPU is lost'\n")
    python = stub(tmp_path / "python", "exit 0\n")
    script = SET_UP.format(ROOT, tmp_path) + "echo $GPU"
    finished = shell(script, PATH=f"{tmp_path}:{os.environ['PATH']}", PYTHON=str(python), PADDLE="")
    assert finished.stdout.strip() == "0"


def contents(folder):
    return {path: path.read_bytes() if path.is_file() else os.path.islink(path) for path in folder.rglob("*")}


def base_python(tmp_path):
    """Return an interpreter that lacks something for good; the environments that it makes are copies of it."""
    made = "mkdir -p $3/bin; cp $0 $3/bin/python"
    others = f'"-m venv "*) {made} ;; "-m pip "*) ;; *) exec {sys.executable} "$@" ;;'
    return stub(tmp_path / "base", f'case "$*" in "- "*) echo something; exit 1 ;; {others} esac\n')


@pytest.mark.parametrize("kind", ["of uv", "of another Python", "a link", "of something else", "a file"])
def test_an_environment_that_is_not_its_own_stays_as_it_is(tmp_path, kind):
    venv, aside = tmp_path / ".venv", tmp_path / "aside"
    if kind == "a file":
        venv.write_text("mine", encoding="utf-8")
    else:
        folder = aside if kind == "a link" else venv
        (folder / "bin").mkdir(parents=True)
        (folder / "mine.txt").write_text("mine", encoding="utf-8")
        if kind == "of uv":  # without pip
            subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        elif kind == "of another Python":
            stub(folder / "bin" / "python", "echo 3.13; exit 1\n")
        elif kind == "a link":
            (aside / "made_by_setup.sh.txt").write_text("a copy", encoding="utf-8")
            venv.symlink_to(aside)
    before = contents(venv)
    finished = shell(SET_UP.format(ROOT, tmp_path) + "echo made", PYTHON=str(base_python(tmp_path)), PADDLE="")
    assert finished.returncode == 1 and "made" not in finished.stdout.splitlines(), finished.stdout
    assert ".venv was not made by setup.sh" in finished.stderr and "VENV=.venv-elmo sh run.sh" in finished.stderr
    assert contents(venv) == before and (venv.is_symlink() or kind != "a link")


def test_an_environment_of_its_own_is_made_anew_where_it_is_no_use(tmp_path):
    environment = dict(PYTHON=str(base_python(tmp_path)), PADDLE="", VENV=".mine")
    finished = shell(SET_UP.format(ROOT, tmp_path), **environment)
    assert "setup: making .mine" in finished.stdout and not (tmp_path / ".venv").exists()
    assert "set up, but lacks something; delete that folder" in finished.stderr
    assert "setup: completing .mine" in shell(SET_UP.format(ROOT, tmp_path), **environment).stdout
    (tmp_path / ".mine" / "bin" / "python").unlink()
    (tmp_path / ".mine" / "left").write_text("by a set-up that was killed", encoding="utf-8")
    assert "setup: making .mine" in shell(SET_UP.format(ROOT, tmp_path), **environment).stdout
    assert not (tmp_path / ".mine" / "left").exists()


@pytest.mark.parametrize("script, program", [
    ("run.sh", "train.py"), ("lac/run.sh", "-m lac.train"), ("mrc/run.sh", "-m mrc.train"),
])  # fmt: skip
def test_help_is_all_that_is_done_where_it_is_asked_for(tmp_path, script, program):
    command = stand_in(tmp_path, ":").replace("/run.sh", f"/{script}")
    stub(tmp_path / "python", f'echo "$*" >> {tmp_path}/calls')
    before = contents(tmp_path)
    assert shell(f"{command} --max_epoch 3 --help", ELMO="").returncode == 0
    calls = (tmp_path / "calls").read_text(encoding="utf-8").splitlines()
    assert calls[-1] == f"{program} --help"
    (tmp_path / "calls").unlink()
    assert contents(tmp_path) == before


def test_cards_that_are_not_there_are_named(tmp_path):
    finished = shell(stand_in(tmp_path, ":", gpu=1), CUDA_VISIBLE_DEVICES="0,1,2,3")
    assert finished.returncode == 1 and "not there: 2 3 (the driver shows 0,1)" in finished.stderr
    assert "CUDA_VISIBLE_DEVICES=0,1\n" in finished.stderr


def test_a_card_that_paddle_does_not_see_is_an_error(tmp_path):
    command = stand_in(tmp_path, looks(tmp_path), gpu=1)
    others = f"*device_count*) exit 1 ;; *paddle.distributed.launch*) touch {tmp_path}/launched ;;"
    stub(tmp_path / "python", f'case "$*" in {others} esac\n')
    finished = shell(command)
    assert finished.returncode == 1 and "but Paddle of" in finished.stderr and "sees none" in finished.stderr
    assert not (tmp_path / "launched").exists()


def test_the_card_is_looked_at_before_anything_is_installed(tmp_path):
    stub(tmp_path / "nvidia-smi", "case $1 in -L) echo 'GPU 0: a card' ;; *) echo 0, 9.0 ;; esac\n")
    finished = shell(SET_UP.format(ROOT, tmp_path), PATH=f"{tmp_path}:{os.environ['PATH']}", PADDLE="",
                     PYTHON=str(base_python(tmp_path)))  # fmt: skip
    assert finished.returncode == 1 and "has compute capability 9.0" in finished.stderr
    assert "PYTHON=.venv-own/bin/python sh run.sh" in finished.stderr and not list(tmp_path.glob(".venv*"))


@pytest.mark.parametrize("cards, rows", [(9, None), (10, 123)])
def test_the_batch_of_the_demonstration_fits_its_text(tmp_path, cards, rows):
    finished = shell(stand_in(tmp_path, looks(tmp_path), gpu=1, cards=cards))
    asked = (tmp_path / "asked").read_text(encoding="utf-8")
    assert finished.returncode == 0 and "--use_gpu true" in asked.split(" -- ")[0]
    assert (f"--batch_size {rows} " in asked) == bool(rows) == ("batch 123 instead of 128" in finished.stdout)
    shell(stand_in(tmp_path, looks(tmp_path), gpu=1, cards=cards) + " --train_path mine")
    assert "--batch_size" not in (tmp_path / "asked").read_text(encoding="utf-8")


@pytest.mark.parametrize("task", ["", "lac/", "mrc/"])
def test_the_cpu_is_used_where_the_flag_says_so(tmp_path, task):
    (tmp_path / f"{task[:-1]}_model_baseline").mkdir()
    command = stand_in(tmp_path, looks(tmp_path), gpu=1).replace("/run.sh", f"/{task}run.sh")
    assert shell(f"{command} --use_gpu False", CPU_NUM="2", ELMO="").returncode == 0
    asked = (tmp_path / "asked").read_text(encoding="utf-8")
    assert "--nproc_per_node 2" in asked and "--devices" not in asked and asked.endswith("cards=-1,-1\n")


def test_libraries_are_found_where_ordinary_users_do_not_look(tmp_path):
    script = f". scripts/cards.sh; empty_own() {{ mkdir $1; }}; PYTHON={sys.executable}; cd {tmp_path}; link_cuda"
    finished = shell(f"{script}; echo $system", PATH="/usr/bin:/bin")
    assert "libc.so.6" in finished.stdout.split(), finished.stderr


def test_what_the_user_says_of_threads_and_addresses_wins():
    script = ". ./setup.sh; echo $MKL_NUM_THREADS $host $GLOO_SOCKET_IFNAME"
    environment = dict(PYTHON=sys.executable, OMP_NUM_THREADS="3", MKL_NUM_THREADS="", POD_IP="")
    assert shell(script, **environment, GLOO_SOCKET_IFNAME="").stdout.split() == ["3", "--host", "127.0.0.1", "lo"]
    environment.update(MKL_NUM_THREADS="2", POD_IP="10.0.0.7", GLOO_SOCKET_IFNAME="eth7")
    assert shell(script, **environment).stdout.split() == ["2", "eth7"]
