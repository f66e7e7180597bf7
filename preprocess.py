"""Make a corpus from raw text, and a vocabulary from a corpus.

    python preprocess.py sentences --input my_texts/ --output data/mine
    python preprocess.py vocabulary --input data/mine/train --output data/mine/vocabulary.txt

`sentences` reads UTF-8 text in which a blank line separates documents. It cuts sentences after 。！？ and
their like, words with jieba, and writes one sentence a line to OUTPUT/train/ and OUTPUT/dev/. Whether a
document is held out for dev depends on a hash of its text, so it is the same every time.
"""

import argparse
import hashlib
import itertools
import logging
import os
import re
import sys
from pathlib import Path
from typing import Iterable, Iterator, List, TextIO

from checkpoint import write_text
from options import fail
from reader import InputError, Vocabulary, find_files, read_lines

# An end of sentence takes the closing quotes and brackets after it along.
SENTENCE = re.compile(r"[^。！？!?]*(?:[。！？!?]+[”’』」）)】》]*|$)")


def split_sentences(paragraph: str) -> List[str]:
    """Return the sentences of a paragraph; joined up they are the paragraph without white space at cuts."""
    return [sentence for sentence in (match.strip() for match in SENTENCE.findall(paragraph)) if sentence]


def segment(sentence: str) -> str:
    """Return the words of a sentence, as jieba cuts them, with blanks between."""
    import jieba  # loads its dictionary on first use; the vocabulary command does without

    jieba.setLogLevel(logging.WARNING)
    return " ".join(word for word in jieba.cut(sentence) if not word.isspace())


def documents(path: Path) -> Iterator[List[str]]:
    """Yield the non-blank lines of each document of a file."""
    lines = itertools.chain.from_iterable(read_lines(path))
    for blank, document in itertools.groupby(lines, key=lambda line: not line.strip()):
        if not blank:
            yield list(document)


def is_held_out(document: Iterable[str], dev_fraction: float) -> bool:
    """Say whether a document goes to dev, from its text alone."""
    digest = hashlib.sha256("\n".join(document).encode("utf-8")).digest()
    return int.from_bytes(digest[:8], "big") < dev_fraction * 2**64


class ShardWriter:
    """Writes lines to numbered files of about `size` bytes; a file gets its name when it is complete."""

    def __init__(self, folder: Path, size: int):
        self.folder, self.size = folder, size
        self.count = self.lines = self.written = 0
        self.file: TextIO = None
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise InputError(f"{folder} is not empty; choose another --output, or delete it first")

    def write(self, line: str) -> None:
        if self.file is None:
            self.file = open(self.folder / ".writing", "w", encoding="utf-8", newline="\n")
        self.file.write(line + "\n")
        self.lines += 1
        self.written += len(line.encode("utf-8")) + 1
        if self.written >= self.size:
            self.close()

    def close(self) -> None:
        if self.file is not None:
            self.file.close()
            os.replace(self.folder / ".writing", self.folder / f"part_{self.count:05d}.txt")
            self.file, self.written, self.count = None, 0, self.count + 1


def sentences(options) -> None:
    """The `sentences` command."""
    paths = find_files(options.input)
    train, dev = (ShardWriter(Path(options.output) / part, options.shard_size) for part in ("train", "dev"))
    seen = set()
    repeated = 0
    for path in paths:
        for document in documents(path):
            writer = dev if is_held_out(document, options.dev_fraction) else train
            for sentence in itertools.chain.from_iterable(map(split_sentences, document)):
                line = segment(sentence)
                fingerprint = hashlib.sha256(line.encode("utf-8")).digest()[:8]
                if fingerprint in seen:
                    repeated += 1
                else:
                    seen.add(fingerprint)
                    writer.write(line)
    train.close()
    dev.close()
    if not dev.lines and options.dev_fraction > 0:
        print(f"warning: no document fell to dev; with so few, raise --dev_fraction (now {options.dev_fraction})")
    print(
        f"{len(paths)} files: {train.lines} sentences for training in {train.count} shards, {dev.lines} for dev in "
        f"{dev.count}, {repeated} repeated ones dropped"
    )


def vocabulary(options) -> None:
    """The `vocabulary` command."""
    words, covered = Vocabulary.build(options.input, options.min_count, options.max_size)
    path = Path(options.output)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, "".join(word + "\n" for word in words))
    print(f"{path}: {len(words)} words, {100 * covered:.2f} % of the text covered")


def _size(text: str) -> int:
    found = re.fullmatch(r"(\d+)\s*([KMG]?)B?", text.upper())
    if not found or int(found[1]) == 0:
        raise argparse.ArgumentTypeError(f"must be a size such as 100MB, got {text!r}")
    return int(found[1]) * {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}[found[2]]


def main(arguments=None) -> None:
    """Run from the command line; user errors end with a message and exit code 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("sentences", help="raw text → segmented shards")
    make.add_argument("--input", nargs="+", required=True, help="files, folders or glob patterns")
    make.add_argument("--output", required=True, help="folder that gets train/ and dev/")
    make.add_argument("--shard_size", type=_size, default="100MB", help="size of one shard (default: 100MB)")
    make.add_argument("--dev_fraction", type=float, default=0.01, help="share of documents for dev (default: 0.01)")
    make = commands.add_parser("vocabulary", help="segmented shards → vocabulary file")
    make.add_argument("--input", nargs="+", required=True, help="the training shards: files, folders or patterns")
    make.add_argument("--output", required=True, help="the vocabulary file")
    make.add_argument("--min_count", type=int, default=2, help="leave out words seen less often (default: 2)")
    make.add_argument("--max_size", type=int, help="at most so many words, <S> </S> <UNK> included")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    try:
        {"sentences": sentences, "vocabulary": vocabulary}[options.command](options)
    except InputError as error:
        fail(error)
    except OSError as error:
        fail(InputError(f"cannot write {options.output}: {error.strerror}"))


if __name__ == "__main__":
    main()
