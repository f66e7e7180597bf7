"""What ELMo gains a reader on CMRC 2018: sh benchmarks/reading.sh --data FOLDER [--quick] [--text FILE …]

FOLDER holds train, trial and dev of CMRC 2018 in SQuAD's form (train.json or train.json.gz, …; CC BY-SA 4.0, from
github.com/ymcui/cmrc2018). Trained on train, chosen by trial, reported on dev once.

1. A biLM on the training contexts and on --text (raw text, packed or not), cut as the reader does. Sentences of trial
   and dev are left out. --bilm takes another, a checkpoint of train.py.
2. Readers (`mrc.train`) without ELMo, with the trained mix of its layers, and with the plain look-up of its word
   embedding, with several seeds. All have the same flags.
3. A table and a plot in benchmarks/results/. The difference of two arms is tested by a paired bootstrap over the
   questions of dev, of each question the mean over the seeds of an arm.

Everything is kept in --work (runs/reading); started again, it resumes with what is missing. Cells run side by side,
--jobs at a time, each with one thread.
"""

import argparse
import concurrent.futures
import itertools
import json
import platform
import sys
import time
from pathlib import Path
from typing import Container, Dict, Iterable, List, Tuple

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from elmo_chinese.files import writing  # noqa: E402
from elmo_chinese.runtime import available_cores  # noqa: E402
from elmo_chinese.text.reading import find_files, read_lines  # noqa: E402
from elmo_chinese.training.metrics import read_metrics  # noqa: E402

from commands import run  # noqa: E402

from mrc.evaluate import bleu_4, question_scores  # noqa: E402
from mrc.texts import HALF_WIDTH, cut  # noqa: E402

KINDS = {"baseline": "without ELMo", "elmo": "with ELMo", "lookup": "plain look-up of its embedding"}
PAIRS = [("elmo", "baseline"), ("elmo", "lookup"), ("lookup", "baseline")]
SCORES = {"rouge_l": "Rouge-L", "bleu_4": "BLEU-4", "f1": "F1", "em": "EM"}
# Seeds of each arm, passes at the most, and of the biLM.
FULL = dict(seeds=dict(baseline=3, elmo=3, lookup=1), passes=6, patience=2, bilm_passes=2.0)
QUICK = dict(seeds=dict(baseline=1, elmo=1), passes=2, patience=2, bilm_passes=2.0)
LIMITS = ("--max_passage_len", 350, "--max_question_len", 60, "--max_answer_len", 30)
SAMPLES = 10_000  # of the bootstrap
MOST_WORDS = 100_000  # of the biLM
LEAST = 10  # characters of a sentence that is looked for in other text


# --- the biLM ---


def part_file(data: Path, part: str) -> Path:
    """Return the file of a part of the data set."""
    return next(path for path in (data / f"{part}.json", data / f"{part}.json.gz", data / f"cmrc2018_{part}.json")
                if path.exists())  # fmt: skip


def articles(data: Path, part: str) -> List[dict]:
    """Return the paragraphs of a part, each with its questions."""
    text = "\n".join(line for block in read_lines(part_file(data, part)) for line in block)
    return [paragraph for article in json.loads(text)["data"] for paragraph in article["paragraphs"]]


def sentences(text: str) -> List[str]:
    """Return the sentences of a text, each as its words with spaces between."""
    found = cut(text)
    ends = np.cumsum(found.sentences).tolist()
    return [" ".join(found.words[first:end]).translate(HALF_WIDTH) for first, end in zip([0, *ends], ends)]


def write_words(path: Path, texts: Iterable[str], held_out: Container[str] = ()) -> None:
    """Write the sentences of texts that are not held out, cut as the reader cuts them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing(path) as beside, open(beside, "w", encoding="utf-8") as file:
        for text in texts:
            file.writelines(sentence + "\n" for sentence in sentences(text) if sentence not in held_out)


def make_words(work: Path, data: Path, more: List[str]) -> None:
    """Write the text of the biLM, and that on which its perplexity is measured: trial's contexts."""
    contexts = {part: [one["context"] for one in articles(data, part)] for part in ("train", "trial", "dev")}
    held_out = {
        sentence
        for part in ("trial", "dev")
        for text in contexts[part]
        for sentence in sentences(text)
        if len(sentence) >= LEAST
    }
    write_words(work / "trial" / "part_00000.txt", contexts["trial"])
    lines = (line for path in find_files(more or []) for block in read_lines(path) for line in block)
    write_words(work / "words" / "part_00000.txt", itertools.chain(contexts["train"], lines), held_out)
    run("python", "preprocess.py", "vocabulary", "--input", work / "words", "--output", work / "vocabulary.txt",
        "--max_size", MOST_WORDS)  # fmt: skip


def pretrain(work: Path, data: Path, more: List[str], passes: float) -> Path:
    """Train a biLM; a started one is resumed. Return its folder."""
    if not (work / "vocabulary.txt").exists():
        make_words(work, data, more)
    run(
        *("python", "train.py", "--load_dir", "auto", "--para_save_dir", work / "bilm", "--vocab_path"),
        *(work / "vocabulary.txt", "--train_path", work / "words", "--test_path", work / "trial"),
        *("--embed_size", 128, "--hidden_size", 512),
        *("--batch_size", 32, "--num_steps", 20, "--shuffle", "true", "--sample_softmax", "true"),
        *("--n_negative_samples_batch", 2000, "--learning_rate", 0.4, "--lr_schedule", "linear"),
        *("--max_epoch", passes, "--log_interval", 200, "--dev_interval", 4000, "--save_interval", 4000, "--keep", 1),
        log=work / "bilm.log",
    )
    return work / "bilm"


# --- the readers ---


def cell(work: Path, data: Path, bilm, kind: str, seed: int, plan: dict) -> Dict[str, str]:
    """Train one reader; return its answers to dev, by id. A finished one is read from its file.

    `bilm` is the future of the biLM's folder, None without.
    """
    name = f"{kind}_seed{seed}"
    path = work / "cells" / f"{name}.json"
    if not path.exists():
        folder, log = work / "cells" / name, work / "cells" / f"{name}.log"
        folder.mkdir(parents=True, exist_ok=True)
        elmo = ("--pretrain_elmo_model_path", bilm.result()) if bilm else ()
        run(
            *("python", "-m", "mrc.train", "--train_data", part_file(data, "train"), *LIMITS, "--on_bad_line", "skip"),
            *("--dev_data", part_file(data, "trial"), "--model_save_dir", folder, "--load_dir", "auto", *elmo),
            *("--elmo_vectors", "lookup" if kind == "lookup" else "mix", "--random_seed", seed),
            *("--max_epoch", plan["passes"], "--patience", plan["patience"]),
            log=log,
        )
        unfinished = path.with_suffix(".part")
        run("python", "-m", "mrc.predict", "--model", folder, "--data", part_file(data, "dev"), log=log,
            output=unfinished)  # fmt: skip
        unfinished.replace(path)
        print(f"finished {name}", flush=True)
    return json.loads(path.read_text(encoding="utf-8"))


def score_cell(answers: Dict[str, str], references: Dict[str, List[str]]) -> Tuple[np.ndarray, float]:
    """Return Rouge-L, F1 and EM of each question, `[questions, 3]`, and BLEU-4 of all."""
    each = [question_scores(answers[name], texts) for name, texts in references.items()]
    return np.array(each), bleu_4((answers[name], texts) for name, texts in references.items())


def passes_of(work: Path, kind: str, seed: int) -> List[dict]:
    """Return the records of the passes of a cell."""
    records = read_metrics(work / "cells" / f"{kind}_seed{seed}" / "log" / "metrics.jsonl")
    return [record for record in records if record["kind"] == "epoch"]


# --- the report ---


def bootstrap(first: np.ndarray, second: np.ndarray) -> Tuple[float, float, float, float]:
    """Return the mean difference of two arms over questions, its 95 % interval, and the two-sided p.

    Args:
        first, second: scores `[questions]`, each the mean over an arm's seeds.
    """
    random, gaps = np.random.default_rng(0), first - second
    means = np.concatenate([gaps[random.integers(0, len(gaps), (100, len(gaps)))].mean(axis=1)
                            for _ in range(SAMPLES // 100)])  # fmt: skip
    tail = min(np.mean(means <= 0), np.mean(means >= 0))
    return gaps.mean(), *np.percentile(means, [2.5, 97.5]), min(1.0, 2 * max(tail, 1 / SAMPLES))


def table(rows: List[List[str]]) -> str:
    """Return rows, the first of them a head, in Markdown."""
    rows = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def report(work: Path, cells: Dict[str, Dict[int, Dict[str, str]]], data: Path, name: str) -> str:
    """Write the tables and the plot of `{kind: {seed: answers}}`; return the tables."""
    questions = [qa for paragraph in articles(data, "dev") for qa in paragraph["qas"]]
    references = {qa["id"]: [answer["text"] for answer in qa["answers"]] for qa in questions}
    scored = {kind: [score_cell(answers, references) for answers in seeds.values()] for kind, seeds in cells.items()}
    rows = [["", *SCORES.values(), "passes", "seeds"]]
    for kind, several in scored.items():
        rouge, f1, em = (100 * np.array([each[:, column].mean() for each, _ in several]) for column in range(3))
        bleu = 100 * np.array([bleu for _, bleu in several])
        shown = [f"{values.mean():.2f} ± {values.std():.2f}" for values in (rouge, bleu, f1, em)]
        passes = "/".join(str(len(passes_of(work, kind, seed))) for seed in cells[kind])
        rows.append([KINDS[kind], *shown, passes, str(len(several))])
    text = table(rows)
    gains = [["difference on dev", *(f"{SCORES[score]} [95 %], p" for score in ("rouge_l", "f1", "em"))]]
    for first, second in PAIRS:
        if first in scored and second in scored:
            means = [np.mean([each for each, _ in scored[kind]], axis=0) for kind in (first, second)]
            shown = []
            for column in range(3):
                gap, low, high, p = bootstrap(means[0][:, column], means[1][:, column])
                shown.append(f"{100 * gap:+.2f} [{100 * low:+.2f}, {100 * high:+.2f}], {max(p, 2 / SAMPLES):.4f}")
            gains.append([f"{KINDS[first]}, less {KINDS[second]}", *shown])
    text += f"\n\n{table(gains)}\n"
    log = work / "bilm" / "log" / "metrics.jsonl"
    dev = [record for record in read_metrics(log) if record["kind"] == "dev"] if log.exists() else []
    if dev:
        text += f"\nPerplexity of the biLM on trial's contexts: {dev[-1]['perplexity']:.1f}\n"
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.md").write_text(text, encoding="utf-8")
    plot(work, cells, RESULTS / f"{name}.png")
    return text


def plot(work: Path, cells: Dict[str, Dict[int, Dict[str, str]]], path: Path) -> None:
    """Draw Rouge-L on trial against passes, a line for each cell."""
    import matplotlib  # comes with visualdl

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5, 3.5))
    for number, (kind, seeds) in enumerate(cells.items()):
        for seed in seeds:
            scores = [100 * record["rouge_l"] for record in passes_of(work, kind, seed)]
            label = KINDS[kind] if seed == 0 else None
            axes.plot(range(1, len(scores) + 1), scores, ".-", color=f"C{number}", alpha=0.7, label=label)
    axes.set_xlabel("passes over train")
    axes.set_ylabel("Rouge-L on trial")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def finished(work: Path, plan: dict) -> Dict[str, Dict[int, Dict[str, str]]]:
    """Return the answers of the cells that are finished."""
    found = {kind: {} for kind in KINDS}
    for kind, seeds in plan["seeds"].items():
        for seed in range(seeds):
            path = work / "cells" / f"{kind}_seed{seed}.json"
            if path.exists():
                found[kind][seed] = json.loads(path.read_text(encoding="utf-8"))
    return {kind: seeds for kind, seeds in found.items() if seeds}


def main():
    """Run what is missing, then report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of CMRC 2018")
    parser.add_argument("--bilm", type=Path, help="a biLM to use; none: one is trained")
    parser.add_argument("--text", nargs="+", default=[], metavar="FILE", help="more raw text for the biLM")
    parser.add_argument("--quick", action="store_true", help="two passes, one seed, no look-up")
    parser.add_argument("--jobs", type=int, default=available_cores(), help="cells at a time (default: one a core)")
    parser.add_argument("--report", action="store_true", help="run nothing, report the cells that are finished")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "reading")
    options = parser.parse_args()
    plan, start = QUICK if options.quick else FULL, time.time()
    work = options.work.with_name(options.work.name + "_quick") if options.quick else options.work
    work, data = work.resolve(), options.data.resolve()
    if not options.report:
        (work / "cells").mkdir(parents=True, exist_ok=True)
        with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
            passes = plan["bilm_passes"]
            given = options.bilm and options.bilm.resolve()
            bilm = pool.submit(lambda: given) if given else pool.submit(pretrain, work, data, options.text, passes)
            cells = [(kind, seed) for kind, seeds in plan["seeds"].items() for seed in range(seeds)]  # baselines first
            futures = [pool.submit(cell, work, data, kind != "baseline" and bilm, *(kind, seed, plan))
                       for kind, seed in cells]  # fmt: skip
            for future in futures:
                future.result()
    print(report(work, finished(work, plan), data, work.name))
    print(f"{(time.time() - start) / 60:.0f} minutes, Python {platform.python_version()}")


if __name__ == "__main__":
    main()
