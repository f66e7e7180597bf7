"""How fast text is tagged by the released LAC models: python benchmarks/tagging.py [--official PYTHON]

Every figure is that of a process of its own. In each mode: start-up apart from importing Paddle; sentences/s one at a
time and 100 at a time; the share that cutting text into tokens has of it; on one math thread and on all; a file
through `python -m lac.predict`; the same from a model that lac.export made; peak memory for a file and for one of
ten times as many lines. Writes benchmarks/results/tagging.md and tagging.json.

--official names the Python of an environment in which the official program runs, to be measured in turn with this one
on the same sentences, and ratios are printed:

    python3.7 -m venv official
    official/bin/python -m pip install paddlepaddle==1.8.5 "protobuf<3.21" LAC==2.1.2

The sentences are those of lac/data and data/ (5 to 120 characters), and the two must answer alike.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
MODES = ("lac", "seg", "rank")

# What runs in a process: arguments are mode, model ("" for the released), a file of sentences, rounds.
OURS = """
import sys, time
start = time.perf_counter()
import paddle
imported = time.perf_counter()
from lac import LAC
lac = LAC(sys.argv[2] or None, sys.argv[1])
cut = lac.model.text.segmenter.cut_many
"""
OFFICIAL = """
import sys, time
start = time.perf_counter()
import paddle.fluid
imported = time.perf_counter()
from LAC import LAC
lac = LAC(mode=sys.argv[1])
cut = None
"""
MEASURE = """
import io, json, resource
lac.run("百度是一家高科技公司")
ready = time.perf_counter()
sentences = io.open(sys.argv[3], encoding="utf-8").read().split("\\n")[:-1]

def seconds(work):
    found = []
    for _ in range(int(sys.argv[4])):
        begin = time.perf_counter()
        answers = work()
        found.append(time.perf_counter() - begin)
    return min(found), answers

alone, batches = sentences[:200], [sentences[n : n + 100] for n in range(0, len(sentences), 100)]
one_by_one, answers = seconds(lambda: [lac.run(text) for text in alone])
together, batched = seconds(lambda: [answer for batch in batches for answer in lac.run(list(batch))])
cutting = seconds(lambda: cut(sentences))[0] if cut else None
print(json.dumps({
    "import_s": imported - start, "start_s": ready - imported,
    "alone_per_s": len(alone) / one_by_one, "batch_per_s": len(sentences) / together,
    "cut_share": cutting / together if cut else None,
    "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    "answers": [answers, batched],
}))
"""


def sentences():
    """Return the sentences of the project's data, each once."""
    texts = []
    for name in ("dev.txt", "train.txt"):
        lines = (ROOT / "lac" / "data" / name).read_text(encoding="utf-8").split("\n")
        texts += ["".join(item.rpartition("/")[0] for item in line.split()) for line in lines]
    for path in sorted((ROOT / "data").rglob("*.txt")):
        if path.name != "vocabulary.txt":
            texts += [re.sub(r"\s", "", line) for line in path.read_text(encoding="utf-8").split("\n")]
    return [text for text in dict.fromkeys(texts) if 5 <= len(text) <= 120]


def measure(python, program, mode, path, threads, rounds, model=""):
    """Return the figures of one process."""
    command = [str(python), "-c", program + MEASURE, mode, model, str(path), str(rounds)]
    threads = str(threads)
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8", "MKL_NUM_THREADS": threads, "OMP_NUM_THREADS": threads}
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode:
        sys.exit(f"{command[0]} failed:\n{done.stderr.decode('utf-8')[-2000:]}")
    return json.loads(done.stdout.decode("utf-8").splitlines()[-1])


def predict(mode, path, threads):
    """Return the seconds and peak memory (MB) of `python -m lac.predict` on a file."""
    command = [sys.executable, "-m", "lac.predict", "--mode", mode, str(path)]
    start = time.perf_counter()
    environment = {**os.environ, "MKL_NUM_THREADS": str(threads)}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} failed")
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def run(options, folder):
    """Return all figures as a list of rows, one for each mode and number of threads."""
    texts = sentences()
    path, longer = folder / "sentences.txt", folder / "ten_times.txt"
    path.write_text("".join(text + "\n" for text in texts), encoding="utf-8")
    longer.write_text("".join(text + "\n" for text in texts) * 10, encoding="utf-8")
    for mode in ("lac", "seg"):
        export = [sys.executable, "-m", "lac.export", "--model", mode, "--output", str(folder / mode)]
        subprocess.run(export, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    rows = []
    for mode in MODES:
        for threads in sorted({1, os.cpu_count()}):
            row = {"mode": mode, "threads": threads, "sentences": len(texts)}
            pairs = []
            for _ in range(options.pairs):
                ours = measure(sys.executable, OURS, mode, path, threads, options.rounds)
                theirs = None
                if options.official:
                    theirs = measure(options.official, OFFICIAL, mode, path, threads, options.rounds)
                    if ours["answers"] != theirs["answers"]:
                        sys.exit(f"mode {mode}: the answers differ")
                pairs.append((ours, theirs))
            row.update({name: max(ours[name] for ours, _ in pairs) for name in ("alone_per_s", "batch_per_s")})
            row.update({name: min(ours[name] for ours, _ in pairs) for name in ("start_s", "import_s", "cut_share")})
            if options.official:
                for name in ("alone_per_s", "batch_per_s"):
                    row["official_" + name] = max(theirs[name] for _, theirs in pairs)
                    row["ratios_" + name] = [round(ours[name] / theirs[name], 2) for ours, theirs in pairs]
            short, long = predict(mode, path, threads), predict(mode, longer, threads)
            row["file_per_s"] = 9 * len(texts) / (long[0] - short[0])
            row["file_peak_mb"] = [short[1], long[1]]
            if mode != "rank":
                exported = measure(sys.executable, OURS, mode, path, threads, options.rounds, str(folder / mode))
                row.update({"exported_" + name: exported[name] for name in ("alone_per_s", "batch_per_s")})
            rows.append({name: round(value, 3) if isinstance(value, float) else value for name, value in row.items()})
            print(json.dumps(rows[-1]), flush=True)
    return rows


def table(rows):
    """Return the rows as a table."""
    heads = ["mode", "threads", "start-up", "one at a time", "100 at a time", "of it cutting", "a file", "exported"]
    heads += ["one at a time, official", "ratio", "100 at a time, official", "ratio", "peak, file and ten times that"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for row in rows:
        cells = [row["mode"], row["threads"], f"{row['start_s']:.2f} s"]
        cells += [f"{row['alone_per_s']:.0f}/s", f"{row['batch_per_s']:.0f}/s", f"{100 * row['cut_share']:.0f} %"]
        cells += [f"{row['file_per_s']:.0f}/s"]
        exported = [row.get("exported_" + name) for name in ("alone_per_s", "batch_per_s")]
        cells += ["–" if None in exported else "{:.0f}/s, {:.0f}/s".format(*exported)]
        for name in ("alone_per_s", "batch_per_s"):
            there = "official_" + name in row
            cells += [f"{row['official_' + name]:.0f}/s" if there else "–"]
            cells += [", ".join(f"{ratio:.1f}" for ratio in row["ratios_" + name]) if there else "–"]
        cells += ["{:.0f}, {:.0f} MB".format(*row["file_peak_mb"])]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def main():
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--official", help="Python of an environment with LAC 2.1.2 and paddlepaddle 1.8.5")
    parser.add_argument("--rounds", type=int, default=3, help="of which the fastest counts")
    parser.add_argument("--pairs", type=int, default=2, help="processes of each program, in turn")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = run(options, Path(folder))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "tagging.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    shown = table(rows)
    (RESULTS / "tagging.md").write_text(
        shown + f"\nSentences/s; Python {platform.python_version()}\n", encoding="utf-8"
    )
    print(shown)


if __name__ == "__main__":
    main()
