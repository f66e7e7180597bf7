"""The programs do without what only POSIX has: docs/other_systems.md"""

import re

from conftest import LM, ROOT, run_python

# Paddle and Python's own modules keep what they hold; what is looked up later is gone, as on Windows.
PROGRAM = """
import elmo_chinese, os, signal, sys
import numpy, paddle, concurrent.futures.process, multiprocessing, subprocess, tempfile, tarfile, http.client
for module in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules[module] = None
for name in ("fork", "getuid", "geteuid", "sched_getaffinity", "posix_fallocate", "sysconf", "killpg", "mkfifo"):
    delattr(os, name)
for name in ("SIGKILL", "SIGHUP", "SIGALRM", "SIGUSR1", "alarm", "setitimer", "pthread_kill"):
    delattr(signal, name)
from importlib import import_module
for number in range(0, len(sys.argv)):
    if sys.argv[number] == "--run":
        module, *rest = sys.argv[number + 1 :]
        import_module(module).main(rest[: rest.index("--run")] if "--run" in rest else rest)
"""


def test_the_programs_run_without_what_only_posix_has(tmp_path):
    run = ["--para_save_dir", tmp_path / "run", "--cache_dir", tmp_path / "cache", "--max_epoch", "0.5"]
    run += ["--train_path", LM / "train.txt", "--vocab_path", LM / "vocab.txt", "--batch_size", "8", "--num_steps", "5"]
    (tmp_path / "raw.txt").write_text("上海的房价保持平稳。\n", encoding="utf-8")
    lines = ROOT / "lac" / "data" / "dev.txt"
    tagger = ["--train_data", lines, "--dev_data", lines, "--model_save_dir", tmp_path / "tagger", "--max_epoch", "1"]
    tagger += ["--word_emb_dim", "8", "--grnn_hidden_dim", "8"]
    commands = [
        ["train", *run, "--embed_size", "8", "--hidden_size", "12"],
        ["preprocess", "sentences", "--input", tmp_path / "raw.txt", "--output", tmp_path / "text", "--workers", "1"],
        ["lac.train", *tagger],
        ["lac.predict", "--model", tmp_path / "tagger"],
    ]
    parts = (part for command in commands for part in ("--run", *command))
    done = run_python("-c", PROGRAM, *parts, input="上海的房价保持平稳。\n")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "trained to step" in done.stdout and (tmp_path / "text" / "summary.json").is_file()
    assert re.search("^上海.*/.*房价.*/", done.stdout, re.M)
