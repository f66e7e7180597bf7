"""What each lever of speed is worth: python benchmarks/levers.py [--preset mid] [--softmax sampled]

Trains with everything on, then with one thing off at a time, as `throughput.py` does, and writes the figures of each
run, one JSON object a line, to benchmarks/results/levers_PRESET_SOFTMAX.jsonl.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# name: (changes of the environment, flags)
OFF = {
    "everything on": ({}, []),
    "inner loops in Paddle operators (BILM_CPP=0)": ({"BILM_CPP": "0"}, []),
    "dense gradients of the word tables": ({}, ["--dense"]),
    "one math thread, as Paddle starts": ({"MKL_NUM_THREADS": "1"}, []),
    "no AMD switch (MKL_DEBUG_CPU_TYPE)": ({"MKL_DEBUG_CPU_TYPE": "0"}, []),
    "malloc as it is": ({"MALLOC_ARENA_MAX": "0"}, []),  # any such variable keeps runtime.py from setting its own
    "everything on again": ({}, []),
}


def main():
    """Run each and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="mid")
    parser.add_argument("--softmax", default="sampled")
    parser.add_argument("--iters", default="8")
    options = parser.parse_args()
    given = [f"--preset={options.preset}", f"--softmax={options.softmax}", f"--iters={options.iters}"]
    results = []
    for name, (changes, flags) in OFF.items():
        command = [sys.executable, str(ROOT / "benchmarks" / "throughput.py"), *given, *flags]
        environment = {**os.environ, **changes}
        done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, universal_newlines=True)
        results.append({"off": name, **json.loads(done.stdout.splitlines()[-1])})
        share = results[-1]["tokens_per_s"] / results[0]["tokens_per_s"]
        print(f"{name:46} {results[-1]['tokens_per_s']:9.1f} tokens/s  {share:5.2f}", flush=True)
    path = ROOT / "benchmarks" / "results" / f"levers_{options.preset}_{options.softmax}.jsonl"
    path.write_text("".join(json.dumps(result) + "\n" for result in results), encoding="utf-8")


if __name__ == "__main__":
    main()
