"""What an hour and more of training looks like: memory, speed and perplexity, killed and resumed on the way.

    python benchmarks/long_run.py --output runs/long [--kill 20 45] -- --train_path words/train … (flags of train.py)

Starts train.py with the flags behind `--`, kills it (SIGKILL) after so many minutes and starts it again with
`--load_dir auto`. Every ten seconds the memory that the process holds (VmRSS) goes to OUTPUT/memory.jsonl. A run that
was stopped goes on by the same command. Prints a Markdown table, a line for every ten minutes of training, and draws
the held-out perplexity into OUTPUT/long_run.png.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
from elmo_chinese.training.metrics import read_metrics  # noqa: E402

from recipes import plot  # noqa: E402

PERIOD, WINDOW = 10, 600  # seconds


def resident(pid):
    """Return the bytes of memory that a process holds."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def train(output, flags, kills):
    """Run train.py to its end; `kills` are the minutes of running, of all starts together, at which it is killed."""
    memory, spent = output / "memory.jsonl", 0.0
    command = [sys.executable, ROOT / "train.py", "--load_dir", "auto", "--para_save_dir", output / "run", *flags]
    kills = list(kills)
    while True:
        with open(output / "output.txt", "a", encoding="utf-8") as log:
            process = subprocess.Popen([*map(str, command)], stdout=log, stderr=subprocess.STDOUT)
        begun = time.time()
        while process.poll() is None:
            time.sleep(PERIOD)
            if process.poll() is None:
                record = {"start": begun, "time": time.time(), "bytes": resident(process.pid)}
                with open(memory, "a", encoding="utf-8") as file:
                    file.write(json.dumps(record) + "\n")
                if kills and spent + time.time() - begun > 60 * kills[0]:
                    kills.pop(0)
                    process.kill()
        spent += time.time() - begun
        if process.returncode != -9:
            return process.returncode


def table(output):
    """Return memory, speed and perplexity in Markdown, a row for each ten minutes of each start."""
    memory = [json.loads(line) for line in (output / "memory.jsonl").read_text(encoding="utf-8").splitlines()]
    records = read_metrics(output / "run" / "log" / "metrics.jsonl")
    rows = [["start", "minutes", "memory, GB", "tokens/s", "held-out perplexity"], ["---"] * 5]
    for number, start in enumerate(sorted({record["start"] for record in memory}), start=1):
        end = max(record["time"] for record in memory if record["start"] == start)
        for first in np.arange(start, end, WINDOW):
            held = [one["bytes"] / 1e9 for one in memory if first <= one["time"] < min(end, first + WINDOW)]
            there = [one for one in records if first <= one["time"] < min(end, first + WINDOW)]
            speeds = [one["tokens_per_second"] for one in there if one["kind"] == "train"]
            dev = [one["perplexity"] for one in there if one["kind"] == "dev"]
            minutes = f"{(first - start) / 60:.0f} to {(min(end, first + WINDOW) - start) / 60:.0f}"
            row = [str(number), minutes, f"{min(held):.2f} to {max(held):.2f}"] if held else [str(number), minutes, ""]
            rows.append(row + [f"{np.mean(speeds):,.0f}" if speeds else "", f"{dev[-1]:.1f}" if dev else ""])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def main():
    """Train, then report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for the run and what is measured")
    parser.add_argument("--kill", type=float, nargs="*", default=[20, 45], help="minutes at which the run is killed")
    parser.add_argument("flags", nargs="*", help="flags of train.py")
    options = parser.parse_args()
    output = options.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    code = train(output, options.flags, options.kill)
    print(table(output))
    dev = [record for record in read_metrics(output / "run" / "log" / "metrics.jsonl") if record["kind"] == "dev"]
    first = json.loads((output / "memory.jsonl").read_text(encoding="utf-8").split("\n")[0])["start"]
    curve = [(one["time"] - first) / 60 for one in dev], [one["perplexity"] for one in dev]
    plot(
        {"killed and resumed " + " and ".join(f"{minute:g}" for minute in options.kill): curve}, output / "long_run.png"
    )
    sys.exit(code)


if __name__ == "__main__":
    main()
