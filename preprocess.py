"""Make a corpus from raw documents, and a vocabulary from a corpus.

    python preprocess.py sentences --input my_texts/ --output data/mine
    python preprocess.py vocabulary --input data/mine/train --output data/mine/vocabulary.txt

`sentences` reads text in UTF-8, GB18030, Big5 or UTF-16, packed (.gz, .bz2, .xz) or not, and tells its form by the
content: plain text with blank lines between documents, JSON with one document a line or in an array, CSV, numbered
lines, WikiExtractor's <doc …>, Wikipedia's dumps as they are published. It cuts sentences after 。！？ and their like,
words with jieba or, with --cutter, as a model wants them, and writes one sentence a line to OUTPUT/train/ and
OUTPUT/dev/, with OUTPUT/summary.json and summary.png. How words were cut stands in OUTPUT/segmenter.json; `vocabulary`
and train.py carry it along, so that text for the model is cut the same. Whether a document goes to dev (of
few documents: which blocks of lines) depends on a hash of its text, so it is the same every time. A run that was
stopped or killed resumes when it is started again.

1. Every file is read once: what cannot be decoded is found before hours are spent, and the documents are counted.
2. The documents are handed to the workers in chunks; these cut sentences and words.
3. The chunks come back in order; repeated sentences are dropped, the rest goes to shards. Whenever a shard is
   complete, OUTPUT/.unfinished/state.json gets the place in the input that belongs to it.
"""

import argparse
import contextlib
import functools
import hashlib
import itertools
import json
import os
import re
import secrets
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any, Dict, Iterable, List, Optional, Tuple

from elmo_chinese.command import command
from elmo_chinese.console import Progress, duration, say
from elmo_chinese.files import check_apart, discard, lock_folder, remove_unfinished, write_json, writing
from elmo_chinese.runtime import available_cores
from elmo_chinese.text.corpus.documents import Document, check_files, chunks
from elmo_chinese.text.corpus.forms import NAMES
from elmo_chinese.text.corpus.sentences import normalise, split_sentences
from elmo_chinese.text.corpus.shards import PARTS, Cut, Seen, ShardWriter, count_in, empty_counts, plot, summarise
from elmo_chinese.text.corpus.wikipedia import CONVERSIONS, lines_of_article, to_script
from elmo_chinese.text.jieba_words import rjieba
from elmo_chinese.text.reading import InputError, find_files, read_lines
from elmo_chinese.text.segmenter import JiebaSegmenter, PathSegmenter, Segmenter, read_counts, segmenter_of
from elmo_chinese.text.vocabulary import MANY_UNKNOWN, UNKNOWN, Vocabulary, note_path, read_note
from elmo_chinese.text.workers import in_order, usable_workers
from elmo_chinese.training.flags import Parser, positive_int, share

import numpy as np

SUMMARIES = ("summary.json", "summary.png", "segmenter.json")


@functools.lru_cache(maxsize=None)
def make_segmenter(path: Optional[str], user_dict: Optional[str]) -> Segmenter:
    """Return what cuts the words of the corpus; made once in each process.

    Args:
        path: a model's folder, which text is cut for as its own was; a vocabulary, along whose words text is cut; a
            dictionary, `word count` on each line; or lac, the released tagger. None: jieba cuts.
        user_dict: UTF-8 file with words for jieba.

    Raises:
        InputError, CheckpointError: it cannot be read.
    """
    if path is None:
        lines = [line for block in read_lines(user_dict) for line in block] if user_dict else []
        return JiebaSegmenter("\n".join(lines), user_dict or "")
    if not Path(path).is_file():
        return _of_model(path)
    lines = [line for block in read_lines(path) for line in block]
    if UNKNOWN in map(str.strip, lines):
        return segmenter_of(Vocabulary(path))
    return PathSegmenter(read_counts(path, lines), "count")


def _of_model(path: str) -> Segmenter:
    """Return what cuts text for a biLM or a tagger, by its folder."""
    # They need Paddle, which text cut by jieba does without.
    from elmo_chinese.storage.checkpoint import VOCABULARY_FILE, resolve
    from elmo_chinese.storage.contents import is_bilm
    from elmo_chinese.storage.pretrained import PretrainedError

    from lac.release import load_any

    if is_bilm(resolve(path)):
        return segmenter_of(Vocabulary(resolve(path) / VOCABULARY_FILE))
    if (Path(path) / "embedding_para").is_file():
        raise InputError(f"{path} has no vocabulary in it (Fluid folders have none); name its vocabulary file instead")
    try:
        return load_any(path).text.segmenter
    except PretrainedError as error:
        raise InputError(str(error))


@functools.lru_cache(maxsize=None)
def what_cuts(cutter: Optional[str], user_dict: Optional[str]) -> Dict[str, str]:
    """Return what must be the same wherever a corpus is cut: the words, and the packages that are used for it."""
    dictionary = make_segmenter(cutter, user_dict).dictionary.encode("utf-8")
    found = {"words": hashlib.sha256(dictionary).hexdigest()}
    for package in ("jieba", "opencc", "mwparserfromhell"):
        with contextlib.suppress(metadata.PackageNotFoundError):  # what needs it says so
            found[package] = metadata.version(package)
    return found


def cut_chunk(
    chunk: List[Document],
    width: str,
    script: Optional[str],
    cutter: Optional[str],
    user_dict: Optional[str],
    expected: Dict[str, str],
) -> Cut:
    """Cut the sentences and words of some documents.

    Raises:
        InputError: `what_cuts` is not as expected: this is another machine.
    """
    found = what_cuts(cutter, user_dict)
    other = [
        f"{name} {found.get(name)} instead of {value}" for name, value in expected.items() if found.get(name) != value
    ]
    if other:
        raise InputError(f"text would be cut differently here ({', '.join(other)}); bring the same versions and files")
    documents, blank, lines, dev = [0, 0], 0, [], []
    convert, segmenter = to_script(script), make_segmenter(cutter, user_dict)
    for starts, is_dev, form, raw in chunk:
        before = len(lines)
        if form == "wikipedia":
            raw = [line for markup in raw for line in lines_of_article(markup, script)]
        sentences = itertools.chain.from_iterable(split_sentences(normalise(convert(line), width)) for line in raw)
        words = segmenter.cut_many(list(sentences))
        lines += filter(None, (" ".join(" ".join(row).split()) for row in words))  # white space is a word, too
        dev += [is_dev] * (len(lines) - before)
        documents[is_dev] += starts
        blank += starts and len(lines) == before
    lengths = np.array([line.count(" ") + 1 for line in lines], dtype=np.int64)
    digests = b"".join(hashlib.sha256(line.encode("utf-8")).digest()[:8] for line in lines)
    fingerprints = np.maximum(np.frombuffer(digests, dtype="<u8"), np.uint64(1))
    return Cut(documents, blank, lines, np.array(dev, dtype=np.uint8), lengths, fingerprints)


def settings_of(options) -> Dict[str, Any]:
    """Return what decides what is written."""
    names = ["input", "shard_size", "dev_fraction", "text_field", "normalise", "script", "user_dict", "duplicates"]
    settings = {name: getattr(options, name) for name in [*names, "duplicates_memory", "on_bad_record"]}
    if options.cutter or options.user_dict:
        settings.update(cutter=options.cutter, words_sha256=what_cuts(options.cutter, options.user_dict)["words"])
    return settings


def open_run(options) -> Tuple[List[dict], Dict[str, Any]]:
    """Begin a run, or resume an unfinished one.

    Returns:
        what is known of the files, and how far the run had got.

    Raises:
        InputError: the output is taken, or the unfinished run was another.
    """
    output, settings = Path(options.output), settings_of(options)
    work = output / ".unfinished"
    remove_unfinished(output, re.escape(work.name), age=0)
    if (work / "state.json").exists():
        before = json.loads((work / "settings.json").read_text(encoding="utf-8"))
        other = [f"--{name} was {before.get(name)!r}" for name in settings if settings[name] != before.get(name)]
        if other:
            raise InputError(
                f"{output} holds an unfinished run with other settings ({'; '.join(other)}); give the same to resume, "
                "or delete the folder"
            )
        files = [json.loads(line) for line in (work / "files.jsonl").read_text(encoding="utf-8").split("\n")[:-1]]
        state = json.loads((work / "state.json").read_text(encoding="utf-8"))
        refuse_what_is_there(output, () if state["finished"] else SUMMARIES)
        return files, state
    refuse_what_is_there(output, (work.name, *PARTS, *SUMMARIES))
    skip = (options.on_bad_file == "skip", options.on_bad_record == "skip")
    files = check_files(find_files(options.input), options.text_field, *skip, workers=options.workers)
    state = {"run": secrets.token_hex(4), "position": [0, 0], "remembered": 0, "characters": 0, "finished": False}
    state.update(empty_counts())
    with writing(work) as beside:  # it is there whole, or not at all: nothing else has this name
        beside.mkdir()
        write_json(beside / "settings.json", settings)
        (beside / "files.jsonl").write_text("".join(json.dumps(file) + "\n" for file in files), encoding="utf-8")
        write_json(beside / "state.json", state)
    return files, state


def refuse_what_is_there(output: Path, names: Iterable[str]) -> None:
    """Raise `InputError` if one of these is in a folder already, besides an empty folder for shards."""
    for path in (output / name for name in names):
        if os.path.lexists(path) and not (path.name in PARTS and path.is_dir() and not any(path.iterdir())):
            raise InputError(f"{path} is there already; choose another --output, or move it away")


def sentences(options) -> None:
    """The `sentences` command; one at a time for each output."""
    output = Path(options.output)
    check_apart("--output", [output / name for name in (*PARTS, *SUMMARIES)], options.input)
    busy = f"another run is writing to {options.output}; let it end, or choose another --output"
    made = not output.exists()
    with lock_folder(output, busy):
        try:
            make_sentences(options)
        finally:
            with contextlib.suppress(OSError):  # something is in it
                if made:
                    output.rmdir()


def make_sentences(options) -> None:
    """Make the corpus, or what an interrupted run left of it to make."""
    start = time.perf_counter()
    output = Path(options.output)
    if options.scheduler:  # its workers stand in other folders
        for name in ("cutter", "user_dict"):
            path = getattr(options, name)
            setattr(options, name, os.path.abspath(path) if path and os.path.exists(path) else path)
    if options.cutter and options.user_dict:
        raise InputError("--user_dict is for jieba, and --cutter cuts by a dictionary; give one of them")
    to_script(options.script)  # what is not installed is found at once,
    segmenter = make_segmenter(options.cutter, options.user_dict)  # and so is a wrong dictionary; workers share it
    options.normalise = options.normalise or segmenter.width
    if segmenter.kind == "jieba" and not options.user_dict and rjieba() is None:
        say("jieba cuts all words; with rjieba (pip install rjieba) it goes several times as fast, to the same words")
    seen = Seen(options.duplicates_memory) if options.duplicates == "drop" else None
    options.workers = usable_workers(options.workers)
    files, state = open_run(options)
    work = output / ".unfinished"
    if seen:
        seen.load(work / "fingerprints.u8", state["remembered"])
    writers = [
        ShardWriter(output / part, options.shard_size, state["run"], state[part]["shards"], state[part]["written"])
        for part in PARTS
    ]
    before = sum(state[part]["documents"] for part in PARTS)
    total = sum(file["documents"] for file in files)
    if before:
        say(f"resumes after {before:,} of {total:,} documents and {state['train']['shards']} shards for training")
    characters = sum(file["characters"] for file in files)
    progress = Progress(characters, "thousand characters", 1000, done=state["characters"])

    def save(position, fingerprints):
        for writer in writers:
            writer.sync()
        fingerprints.flush()
        os.fsync(fingerprints.fileno())
        state["position"] = position
        for part, writer in zip(PARTS, writers):
            state[part].update(shards=writer.count, written=writer.written)
        write_json(work / "state.json", state)
        for writer in writers:
            writer.publish()

    tasks = chunks(files, options.text_field, options.dev_fraction, state["position"])
    how = dict(width=options.normalise, script=options.script, cutter=options.cutter, user_dict=options.user_dict)
    work_on = functools.partial(cut_chunk, expected=what_cuts(options.cutter, options.user_dict), **how)
    with contextlib.closing(in_order(work_on, tasks, options.workers, options.scheduler)) as cuts, open(
        work / "fingerprints.u8", "ab"
    ) as fingerprints:
        for (position, size), cut in cuts:
            fresh = np.ones(len(cut.lines), dtype=bool) if seen is None else seen.new(cut.fingerprints)
            if seen is not None:
                seen.add(cut.fingerprints[fresh])
                cut.fingerprints[fresh].tofile(fingerprints)
                state["remembered"] += int(fresh.sum())
            shards = [writer.count for writer in writers]
            for writer, is_dev in zip(writers, (0, 1)):
                writer.add(cut.lines[index] for index in np.flatnonzero(fresh & (cut.dev == is_dev)))
            state["characters"] += size
            count_in(state, cut, fresh)
            if shards != [writer.count for writer in writers]:
                save(position, fingerprints)
            done = sum(state[part]["documents"] for part in PARTS)
            speed = (done - before) / (time.perf_counter() - start)
            progress.add(size, f"{done:,} of {total:,} documents  {speed:,.1f} documents/s  ")
        save([len(files), 0], fingerprints)
    if not state["train"]["sentences"]:
        if not state["dev"]["sentences"]:
            raise InputError(f"no sentence in the {total:,} documents of --input")
        raise InputError(
            f"all {state['dev']['sentences']:,} sentences of the {total:,} documents fell to dev, none is left for "
            f"training; delete {options.output} and lower --dev_fraction, or bring more text"
        )
    finish(output, files, state, writers, {**segmenter.note, "width": options.normalise})
    report(output, files, state, total - before, time.perf_counter() - start, options)


def finish(
    output: Path, files: List[dict], state: Dict[str, Any], writers: List[ShardWriter], note: Dict[str, str]
) -> None:
    """Give the last shards their names, write summary and note, and put away what only an unfinished run needs."""
    for part, writer in zip(PARTS, writers):
        writer.close()
        state[part].update(shards=writer.count, written=0)
    state["finished"] = True
    write_json(output / ".unfinished" / "state.json", state)
    for writer in writers:
        writer.publish()
    summary = summarise(files, state)
    write_json(output / SUMMARIES[2], note)
    write_json(output / "summary.json", summary, indent=1)
    plot(summary, output / "summary.png")
    discard(output / ".unfinished")  # from here on it is whole, also if we are killed


def report(output: Path, files: List[dict], state: Dict[str, Any], done: int, seconds: float, options) -> None:
    """Print what was made."""
    train, dev = (state[part] for part in PARTS)
    for file in files:
        if file["error"]:
            say(f"left out: {file['error']}")
        if file["bad_records"]:
            say(f"{file['bad_records'][1]} records left out, the first: {file['bad_records'][0]}")
    for form, name in NAMES.items():
        some = [file for file in files if file["form"] == form and not file["error"]]
        if some:
            say(f"{name}: {len(some)} files, {sum(file['documents'] for file in some):,} documents")
    if not dev["sentences"] and options.dev_fraction > 0:
        few = "whole documents go there (blank lines separate them), of few documents blocks of lines"
        say(f"warning: nothing fell to dev: {few}; with so little text raise --dev_fraction {options.dev_fraction}")
    bad = sum(file["error"] is not None for file in files)
    say(
        f"{len(files) - bad} files, {train['documents'] + dev['documents']:,} documents: {train['sentences']:,} "
        f"sentences ({train['words']:,} words) for training in {train['shards']} shards, {dev['sentences']:,} for dev "
        f"in {dev['shards']}; {state['repeated']} repeated ones dropped, {bad} bad files left out\n"
        f"{done:,} documents in {duration(seconds)}; {output / 'summary.json'} and summary.png have more"
    )


def corpus_note(path: Path) -> Optional[Dict[str, str]]:
    """Return how the text was cut that a corpus, its train/, or a shard in it holds; None: not by this program."""
    found = (read_note(folder / SUMMARIES[2]) for folder in (path, *list(path.absolute().parents)[:2]))
    return next(filter(None, found), None)


def vocabulary(options) -> None:
    """The `vocabulary` command; what says how the text was cut goes beside the vocabulary."""
    path = Path(options.output)
    note = note_path(path)
    check_apart("--output", [path, note], options.input)
    read_note(note)  # one that is something else is not replaced
    notes = [corpus_note(Path(name)) for name in options.input]
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing(path) as beside, open(beside, "w", encoding="utf-8", newline="\n") as file:  # tried at once
        words, covered = Vocabulary.build(options.input, options.min_count, options.max_size)
        if len(words) == 3:
            raise InputError(f"no word stands --min_count {options.min_count} times or more in --input; lower it")
        file.writelines(word + "\n" for word in words)
        write_json(note, notes[0] if all(one == notes[0] for one in notes) else None)
    advice = "; the rest is <UNK>: with little text lower --min_count" if 1 - covered > MANY_UNKNOWN else ""
    say(f"{path}: {len(words):,} words, {100 * covered:.2f} % of the text covered{advice}")


def _size(text: str) -> int:
    found = re.fullmatch(r"(\d+)\s*([KMG]?)B?", text.upper())
    if not found or int(found[1]) == 0:
        raise argparse.ArgumentTypeError(f"must be a size such as 100MB, got {text!r}")
    return int(found[1]) * {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}[found[2]]


def main(arguments=None) -> None:
    """Run from the command line; user errors end with a message and exit code 1."""
    parser = Parser(prog="preprocess.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("sentences", help="raw documents → segmented shards")
    make.add_argument("--input", nargs="+", required=True, help="files, glob patterns, or folders with all in them")
    make.add_argument("--output", required=True, help="folder that gets train/, dev/ and the summary")
    make.add_argument("--shard_size", type=_size, default="100MB", help="size of one shard (default: 100MB)")
    make.add_argument("--dev_fraction", type=share, default=0.01, help="share of the text for dev (default: 0.01)")
    make.add_argument("--text_field", default="text", help="what holds the document in JSON (default: text)")
    make.add_argument(
        "--normalise",
        choices=["none", "half", "full"],
        help="half: full-width letters, digits and signs become ASCII; full: the other way; "
        "both: white space becomes one blank, control characters go (default: as the model of --cutter, or none)",
    )
    make.add_argument(
        "--script", choices=list(CONVERSIONS), help="write all text in these characters (needs opencc; none: as it is)"
    )
    make.add_argument(
        "--cutter",
        help="what cuts words: the folder of a biLM or tagger (as its text was cut), a vocabulary (along its words), "
        "a dictionary (`word count` on each line), or lac; none: jieba",
    )
    make.add_argument("--user_dict", help="words for jieba, UTF-8: a word a line (or `word count tag`)")
    make.add_argument(
        "--duplicates",
        choices=["drop", "keep"],
        default="drop",
        help="repeated sentences (default: drop)",
    )
    make.add_argument(
        "--duplicates_memory",
        type=_size,
        default="256MB",
        help="what drop may use: 17 bytes a sentence; beyond that the oldest are forgotten (default: 256MB)",
    )
    make.add_argument("--workers", type=positive_int, default=available_cores(), help="processes (default: one a core)")
    make.add_argument("--scheduler", metavar="ADDRESS", help="words are cut by a Dask cluster: tcp://HOST:8786")
    make.add_argument(
        "--on_bad_file", choices=["stop", "skip"], default="stop", help="what cannot be decoded (default: stop)"
    )
    make.add_argument(
        "--on_bad_record", choices=["stop", "skip"], default="stop", help="JSON without a text (default: stop)"
    )
    make = commands.add_parser("vocabulary", help="segmented shards → vocabulary file")
    make.add_argument("--input", nargs="+", required=True, help="the training shards: files, folders or patterns")
    make.add_argument("--output", required=True, help="the vocabulary file")
    make.add_argument("--min_count", type=positive_int, default=2, help="leave out rarer words (default: 2)")
    make.add_argument("--max_size", type=positive_int, help="at most so many words, <S> </S> <UNK> included")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    with command(options.output, "stopped; the same command resumes from the last complete shard"):
        {"sentences": sentences, "vocabulary": vocabulary}[options.command](options)


if __name__ == "__main__":
    import preprocess  # the workers of a cluster find its functions by this name

    preprocess.main()
