"""elmo_embed.py: the same vectors whatever the batch, every line in its place, bounded memory, bad input."""

import itertools
import json
import os
import re
import shlex
import shutil
import sys
import textwrap
import types
from pathlib import Path

from elmo_chinese.storage import checkpoint
from elmo_chinese.text.reading import read_lines
from elmo_chinese.text.vocabulary import Vocabulary, note_path

import numpy as np
import paddle
import pytest
from conftest import GOLDEN, LM, largest_difference, run_python

import elmo_embed as script
from bilm import BiLM, ElmoEncoder, load_encoder
from elmo_embed import batches, embed, main

FLUID = GOLDEN / "lac_small" / "elmo_checkpoint"
WORDS = ["<S>", "</S>", "<UNK>", *(f"词{number}" for number in range(3, 60))]


@pytest.fixture
def vocab_path(tmp_path):
    path = tmp_path / "vocabulary.txt"
    path.write_text("".join(word + "\n" for word in WORDS), encoding="utf-8")
    return path


@pytest.fixture
def vocabulary(vocab_path):
    return Vocabulary(vocab_path)


@pytest.fixture
def encoder():
    return load_encoder(FLUID)[0]


def sentence(rng, length):
    return [WORDS[index] for index in rng.integers(2, 60, length)]


@pytest.fixture
def sentences():
    """Forty sentences, among them empty ones and single words."""
    rng = np.random.default_rng(0)
    return [sentence(rng, length) for length in [0, 1, 5, 0, 40, 1, *rng.integers(0, 30, 33), 0]]


def directly(encoder, vocabulary, words, layers="all"):
    """Return the vectors of one sentence by the encoder itself: `[layers, words, size]` or one layer of that."""
    encoder.eval()
    with paddle.no_grad():
        stacked = encoder.layers(paddle.to_tensor([vocabulary.encode(words)]))
        chosen = {"all": stacked, "top": stacked[-1], "mix": encoder.mix(stacked)}[layers].numpy()
    return chosen[:, 0] if layers == "all" else chosen[0]


def written(tmp_path, text, *more, vocab_path=None, name="out.npz"):
    """Run the command on a text; return its output."""
    (tmp_path / "in.txt").write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    flags = ["--checkpoint", FLUID, "--input", tmp_path / "in.txt", "--output", tmp_path / name, *more]
    main([str(flag) for flag in [*flags, "--vocab_path", vocab_path or tmp_path / "vocabulary.txt"]])
    return tmp_path / name


def command(tmp_path, text, *more):
    """Run the command on a text; return the vectors of its lines."""
    with np.load(written(tmp_path, text, *more)) as arrays:
        return [arrays[str(number)] for number in range(len(arrays.files))]


def lines(sentences):
    return "".join(" ".join(words) + "\n" for words in sentences)


# --- the same vectors, whatever the batch ---


@pytest.mark.parametrize("layers", ["all", "top", "mix"])
@pytest.mark.parametrize("boundaries", [False, True])
def test_a_sentence_has_its_own_vectors_in_any_batch(vocabulary, sentences, layers, boundaries):
    encoder, _ = load_encoder(FLUID, boundaries=boundaries)
    expected = [directly(encoder, vocabulary, words, layers) if words else None for words in sentences]
    for batch_tokens in (1, 7, 64, 100_000):
        vectors = list(embed(sentences, encoder, vocabulary, layers=layers, batch_tokens=batch_tokens))
        assert len(vectors) == len(sentences)
        for words, array, wanted in zip(sentences, vectors, expected):
            assert array.shape == (*((3,) if layers == "all" else ()), len(words), 16) and array.dtype == np.float32
            assert not words or largest_difference(array, wanted) < 1e-5


def test_any_order_gives_the_same(encoder, vocabulary, sentences):
    straight = list(embed(sentences, encoder, vocabulary))
    order = np.random.default_rng(1).permutation(len(sentences))
    for place, array in zip(order, embed([sentences[place] for place in order], encoder, vocabulary)):
        assert largest_difference(array, straight[place]) < 1e-5 if len(array) else not sentences[place]


def test_dropout_is_off_no_gradient_is_kept_and_training_goes_on(vocabulary):
    encoder, _ = load_encoder(FLUID, finetune=True)
    encoder.train()
    first, second = (list(embed([["词3", "词4"]], encoder, vocabulary))[0] for _ in range(2))
    assert encoder.training and np.array_equal(first, second)
    assert largest_difference(first, directly(encoder, vocabulary, ["词3", "词4"], "mix")) < 1e-6


@pytest.mark.parametrize("pool", ["mean", "max"])
@pytest.mark.parametrize("layers", ["all", "top", "mix"])
def test_pools_equal_numpy(encoder, vocabulary, sentences, pool, layers):
    pooled = embed(sentences, encoder, vocabulary, layers=layers, pool=pool, batch_tokens=64)
    for words, array in zip(sentences, pooled):
        assert array.shape == ((3, 16) if layers == "all" else (16,))
        vectors = directly(encoder, vocabulary, words, layers) if words else np.zeros_like(array)[..., None, :]
        assert largest_difference(array, getattr(np, pool)(vectors, axis=-2)) < 1e-5


def test_float16_is_the_rounded_float32(encoder, vocabulary, sentences):
    exact, half = (list(embed(sentences, encoder, vocabulary, dtype=dtype)) for dtype in ("float32", "float16"))
    assert all(b.dtype == np.float16 and np.array_equal(a.astype(np.float16), b) for a, b in zip(exact, half))


def test_arrays_are_their_own(encoder, vocabulary, sentences):
    assert all(array.base is None for array in embed(sentences, encoder, vocabulary))


def test_a_generator_without_end_is_taken_a_window_at_a_time(encoder, vocabulary, monkeypatch):
    monkeypatch.setattr(script, "WINDOW_BATCHES", 2)
    taken = itertools.count()
    endless = (["词5"] * (next(taken) % 5) for _ in itertools.count())
    vectors = embed(endless, encoder, vocabulary, batch_tokens=20)
    assert [len(next(vectors)) for _ in range(12)] == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]
    assert next(taken) <= 40


def test_the_windows_vectors_are_bounded_too(encoder, vocabulary, monkeypatch):
    monkeypatch.setattr(script, "WINDOW_BYTES", 30 * 3 * 16 * 4)
    taken = itertools.count()
    endless = (["词5"] * 3 for _ in taken)
    next(embed(endless, encoder, vocabulary, layers="all"))
    assert next(taken) == 10


def test_batches_hold_sentences_of_like_length_within_the_budget():
    lengths = np.random.default_rng(0).integers(0, 50, 1000)
    seen = list(batches(lengths, 200, extra=2))
    assert sorted(itertools.chain.from_iterable(seen)) == np.flatnonzero(lengths).tolist()
    assert all(len(batch) * (max(lengths[batch]) + 2) <= 200 for batch in seen)
    assert sum(len(batch) * max(lengths[batch]) for batch in seen) < 1.15 * lengths.sum()
    assert list(batches([300], 200)) == [[0]] and list(batches([0, 0], 200)) == []


# --- what a call refuses ---


def test_a_string_is_no_sentence(encoder, vocabulary):
    with pytest.raises(ValueError, match="sentences must be lists of words, got one string"):
        embed("词3 词4", encoder, vocabulary)
    with pytest.raises(ValueError, match="sentence 1 must be a list of words .strings., got '词3 词4'"):
        list(embed([["词3"], "词3 词4"], encoder, vocabulary))
    with pytest.raises(ValueError, match="sentence 0 must be a list of words .strings., got 3"):
        list(embed([[3, 4]], encoder, vocabulary))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"layers": "last"}, "layers must be one of all, top, mix, got 'last'"),
        ({"pool": "sum"}, "pool must be one of none, mean, max, got 'sum'"),
        ({"dtype": "int8"}, "dtype must be one of float32, float16, got 'int8'"),
        ({"batch_tokens": 0}, "batch_tokens must be positive, got 0"),
    ],
)
def test_wrong_options_fail_at_the_call(encoder, vocabulary, options, message):
    with pytest.raises(ValueError, match=message):
        embed([], encoder, vocabulary, **options)


def test_a_vocabulary_of_another_size_and_several_mixes_are_errors(vocabulary):
    with pytest.raises(ValueError, match="the vocabulary has 60 words, the encoder 61"):
        embed([], ElmoEncoder(61, 8, 12), vocabulary)
    with pytest.raises(ValueError, match="wants an encoder with one mix, got 2"):
        embed([], ElmoEncoder(60, 8, 12, num_mixes=2), vocabulary)


# --- the command ---


def test_every_line_is_in_its_place(tmp_path, vocabulary, encoder, sentences, capsys):
    vectors = command(tmp_path, lines(sentences), "--batch_tokens", 50)
    assert len(vectors) == 40
    for words, array in zip(sentences, vectors):
        assert array.shape == (len(words), 16)
        assert not words or largest_difference(array, directly(encoder, vocabulary, words, "mix")) < 1e-5
    printed = capsys.readouterr().out
    words, empty = sum(map(len, sentences)), sum(not words for words in sentences)
    unknown = sum(words.count("<UNK>") for words in sentences)
    assert f"40 lines ({empty} empty), {words} words\nunknown     {unknown} of {words} words are <UNK>" in printed
    assert "[words, 16] of float32 a line" in printed and f"{words} of {words} words" in printed
    assert "sentences/s" in printed and "words/s" in printed and not (tmp_path / "out.npz.tmp").exists()


@pytest.mark.parametrize("pool", ["none", "max"])
@pytest.mark.parametrize("layers", ["all", "mix"])
def test_one_array_has_the_vectors_of_all_lines(tmp_path, vocab_path, sentences, layers, pool):
    flags = ["--layers", layers, "--pool", pool, "--dtype", "float16"]
    one_by_one = command(tmp_path, lines(sentences), *flags)
    vectors = np.load(written(tmp_path, lines(sentences), *flags, name="out.npy"), mmap_mode="r")
    offsets = np.load(tmp_path / "out.offsets.npy")
    rows = sum(map(len, sentences)) if pool == "none" else len(sentences)
    assert vectors.dtype == np.float16 and vectors.shape == (rows, *((3,) if layers == "all" else ()), 16)
    assert len(offsets) == len(one_by_one) + 1 and offsets[0] == 0 and offsets[-1] == rows
    for array, start, end in zip(one_by_one, offsets, offsets[1:]):
        array = array[np.newaxis] if pool == "max" else np.moveaxis(array, -2, 0)
        assert np.array_equal(vectors[start:end], array)


def test_flags_do_what_the_call_does(tmp_path, vocabulary, sentences):
    flags = ["--layers", "all", "--pool", "max", "--dtype", "float16", "--boundaries"]
    vectors = command(tmp_path, lines(sentences), *flags)
    encoder, _ = load_encoder(FLUID, boundaries=True)
    expected = embed(sentences, encoder, vocabulary, layers="all", pool="max", dtype="float16")
    for array, wanted in zip(vectors, expected):
        assert array.dtype == np.float16 and largest_difference(array, wanted) < 2e-3


def test_blanks_of_all_kinds_and_a_last_line_without_its_end(tmp_path, vocab_path):
    vectors = command(tmp_path, "\ufeff词3\t词4\u3000词5\r\n   \n\n\n词6")
    assert [len(array) for array in vectors] == [3, 0, 0, 0, 1]


def test_odd_characters_are_unknown_words(tmp_path, vocab_path, encoder, vocabulary):
    odd = ["😀", "\0", "\x07", "\ufffd", "\U0010ffff", "e\u0301"]
    (array,) = command(tmp_path, " ".join([*odd, "\u200b"]) + "\n")  # what has no width is no word
    assert largest_difference(array, directly(encoder, vocabulary, ["<UNK>"] * len(odd), "mix")) < 1e-5
    assert [len(array) for array in embed([["\ud800"]], encoder, vocabulary)] == [1]


def test_json_is_no_segmented_text(tmp_path, vocab_path, capsys):
    with pytest.raises(SystemExit):
        command(tmp_path, '{"text": "我们"}\n')
    assert "JSON, and one sentence a line is expected" in capsys.readouterr().err


def test_segmenting_raw_text(tmp_path, vocab_path, capsys):
    vectors = command(tmp_path, "我爱 北京😀\0天安门\n \n", "--segment")
    assert len(vectors) == 2 and len(vectors[0]) >= 5 and len(vectors[1]) == 0
    assert "2 lines (1 empty)" in capsys.readouterr().out


def test_only_empty_lines_give_zero_words(tmp_path, vocab_path):
    assert [array.shape for array in command(tmp_path, "\n\n", "--layers", "all")] == 2 * [(3, 0, 16)]
    (pooled,) = command(tmp_path, "\n", "--pool", "mean")
    assert pooled.shape == (16,) and not pooled.any()


def test_our_own_checkpoint_brings_its_vocabulary_and_stdin_is_read(tmp_path):
    lm = BiLM(60, 8, 16)
    text = "".join(word + "\n" for word in WORDS)
    info = {"step": 1, "model": lm.lstm.config}
    path = checkpoint.save(tmp_path / "run", info, lm.state_dict(), {}, {"hidden": np.zeros(1)}, text)
    flags = ["--checkpoint", path, "--input", "-", "--output", tmp_path / "new" / "out.npz", "--layers", "top"]
    done = run_python("embed.py", *flags, input="词3 词4\n\n词5\n")
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "new" / "out.npz") as arrays:
        assert {name: arrays[name].shape for name in arrays.files} == {"0": (2, 16), "1": (0, 16), "2": (1, 16)}
    other = tmp_path / "other.txt"
    other.write_text(text.replace("词3\n", "另\n"), encoding="utf-8")
    done = run_python("embed.py", *flags, "--vocab_path", other, input="词3\n")
    assert done.returncode == 1 and "is not the vocabulary of" in done.stderr and "Traceback" not in done.stderr
    done = run_python("embed.py", *flags, input="")
    assert done.returncode == 1 and "standard input is empty" in done.stderr and "Traceback" not in done.stderr


def test_an_archive_is_a_checkpoint_too(tmp_path, vocab_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    packed = shutil.make_archive(str(tmp_path / "elmo"), "gztar", FLUID.parent, FLUID.name)
    straight = command(tmp_path, "词3 词4\n")
    unpacked = command(tmp_path, "词3 词4\n", "--checkpoint", packed)
    assert np.array_equal(straight[0], unpacked[0])


def test_h5(tmp_path, vocab_path):
    h5py = pytest.importorskip("h5py", reason="h5py is not installed; it is optional")
    written(tmp_path, "词3 词4\n\n", name="out.h5")
    with h5py.File(tmp_path / "out.h5", "r") as file:
        assert {key: file[key].shape for key in file} == {"0": (2, 16), "1": (0, 16)}


def test_h5_with_a_stand_in_for_h5py(tmp_path, vocab_path, monkeypatch):
    class File(dict):
        def __init__(self, path, mode):
            self.path = Path(path)
            assert mode == "w"

        def create_dataset(self, key, data):
            self[key] = list(data.shape)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.path.write_text(json.dumps(self), encoding="utf-8")

    monkeypatch.setitem(sys.modules, "h5py", types.SimpleNamespace(File=File))
    written(tmp_path, "词3 词4\n\n", name="out.h5")
    assert json.loads((tmp_path / "out.h5").read_text(encoding="utf-8")) == {"0": [2, 16], "1": [0, 16]}


def test_what_the_documentation_shows_runs(tmp_path, monkeypatch, capsys):
    lm = BiLM(60, 8, 16)
    info = {"step": 100, "model": lm.lstm.config}
    text = "".join(word + "\n" for word in WORDS)
    path = checkpoint.save(tmp_path / "checkpoints", info, lm.state_dict(), {}, {"hidden": np.zeros(1)}, text)
    shutil.copytree(FLUID, tmp_path / "fluid_folder")
    shutil.copyfile(path / "vocabulary.txt", tmp_path / "vocabulary.txt")
    (tmp_path / "data" / "dev").mkdir(parents=True)
    for name in ("data/dev/part_00000.txt", "text.txt"):
        (tmp_path / name).write_text("词3 词4\n", encoding="utf-8")
    (tmp_path / "stdin").write_text("我爱北京\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(script, "read_stdin", lambda size: read_lines("stdin", size))
    commands = re.findall(r"python embed.py (.*)", script.__doc__.replace("\\\n", " "))
    assert len(commands) == 3
    for command in commands:
        main(shlex.split(command))
        assert len(np.load("vectors.npz")["0"].shape) == (1 if "--pool" in command else 2)
    snippet = textwrap.dedent(script.__doc__.split("In Python:")[1].split("Top to bottom")[0])
    capsys.readouterr()
    exec(snippet, {"embed": embed, "load_encoder": load_encoder})
    assert capsys.readouterr().out.endswith("(3, 16)\n(1, 16)\n")


# --- memory ---

PEAK = """
import sys, resource
import numpy as np, paddle
import elmo_embed
from bilm import ElmoEncoder

def peak():
    with open("/proc/self/status", encoding="utf-8") as file:
        return int(next(line for line in file if line.startswith("VmHWM")).split()[1]) / 1024
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads the peak memory from /proc")
def test_memory_does_not_grow_with_the_input(tmp_path, vocab_path):
    code = (
        PEAK
        + f"""
for count in (20_000, 100_000):
    with open(r"{tmp_path}/in.txt", "w", encoding="utf-8") as file:
        file.writelines("词3 词4\\n" for _ in range(count))
    elmo_embed.main(["--checkpoint", r"{FLUID}", "--vocab_path", r"{vocab_path}", "--input", r"{tmp_path}/in.txt",
                "--output", r"{tmp_path}/out.npy", "--batch_tokens", "2048"])
    print(peak(), file=sys.stderr)
"""
    )
    done = run_python("-c", code)
    assert done.returncode == 0, done.stderr
    small, large = map(float, done.stderr.split()[-2:])
    assert large - small < 10  # MB, for 80,000 lines and 10 MB of output more; in an .npz 30
    vectors, offsets = np.load(tmp_path / "out.npy", mmap_mode="r"), np.load(tmp_path / "out.offsets.npy")
    assert vectors.shape == (200_000, 16) and np.array_equal(offsets, np.arange(0, 200_001, 2))
    assert largest_difference(vectors[:2], vectors[-2:]) < 1e-6 and vectors[-1].any()


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads the peak memory from /proc")
def test_a_sentence_of_10000_words_takes_bounded_memory():
    code = (
        PEAK
        + """
encoder = ElmoEncoder(1000, 128, 512)
peaks = []
for words in (2000, 10_000):
    ids = np.random.default_rng(0).integers(0, 1000, words)
    (vectors,) = elmo_embed.embed_ids([ids], encoder, pool="mean", batch_tokens=1000)
    assert vectors.shape == (256,) and np.isfinite(vectors).all()
    peaks.append(peak())
print(*peaks)
"""
    )
    done = run_python("-c", code)
    assert done.returncode == 0, done.stderr
    short, long = map(float, done.stdout.split())
    assert long - short < 160  # MB; the layers of 8,000 words more take 25, with all steps' gates they would take 500


# --- bad input ---


def bad_input(tmp_path, name):
    """Return the flags that are wrong in one way, and what must be said about it."""
    text, vocab = tmp_path / "in.txt", tmp_path / "vocabulary.txt"
    text.write_text("词3\n", encoding="utf-8")
    flags = {"checkpoint": FLUID, "vocab_path": vocab, "input": text, "output": tmp_path / "out.npz"}
    if name == "no vocabulary":
        del flags["vocab_path"]
        return flags, "has no vocabulary in it .Fluid folders have none.; give its file with --vocab_path"
    if name == "other vocabulary":
        vocab.write_text("<S>\n</S>\n<UNK>\n", encoding="utf-8")
        return flags, "vocabulary.txt has 3 words, but .*elmo_checkpoint was trained with 60"
    if name == "missing vocabulary":
        return {**flags, "vocab_path": tmp_path / "none"}, "cannot read .*none: No such file"
    if name == "empty input":
        text.write_bytes(b"")
        return flags, "in.txt is empty; one sentence a line"
    if name == "missing input":
        return {**flags, "input": tmp_path / "none"}, "cannot read .*none: No such file"
    if name == "a folder as input":
        return {**flags, "input": tmp_path}, "out.npz is in .*, which is an input"
    if name == "not UTF-8":
        text.write_bytes("词3\n".encode("utf-8") + "词".encode("gb18030"))
        return flags, "in.txt: not UTF-8: line 2, byte 5"
    if name == "missing checkpoint":
        return {**flags, "checkpoint": tmp_path / "none"}, "none: no such folder or archive"
    if name == "no model":
        return {**flags, "checkpoint": LM.parent}, "no embedding_para in it"
    if name == "a checkpoint that is no archive":
        return {**flags, "checkpoint": text}, "in.txt: not a .tar.gz archive"
    if name == "suffix":
        return {**flags, "output": tmp_path / "out.txt"}, "out.txt: the name must end in .npz, .npy, .h5"
    if name == "a folder as output":
        (tmp_path / "folder.npz").mkdir()
        return {**flags, "output": tmp_path / "folder.npz"}, "folder.npz: is a folder"
    if name == "output below a file":
        return {**flags, "output": text / "out.npz"}, "cannot write .*out.npz: .*; choose another --output"
    if name == "no h5py":
        return {**flags, "output": tmp_path / "out.h5"}, "out.h5: h5py is not installed; .*ends in .npz"
    if name == "no such layers":
        return {**flags, "layers": "last"}, "invalid choice: 'last'"
    if name == "batch_tokens":
        return {**flags, "batch_tokens": "0"}, "must be a whole number of at least 1"
    raise KeyError(name)


BAD = """no vocabulary;other vocabulary;missing vocabulary;empty input;missing input;a folder as input;not UTF-8
missing checkpoint;no model;a checkpoint that is no archive;suffix;a folder as output;output below a file;no h5py
no such layers;batch_tokens""".replace("\n", ";").split(";")


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_clear_line_and_leaves_no_file(tmp_path, vocab_path, capsys, monkeypatch, name):
    monkeypatch.setitem(sys.modules, "h5py", None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    flags, message = bad_input(tmp_path, name)
    with pytest.raises(SystemExit) as stopped:
        main([str(part) for name, value in flags.items() for part in (f"--{name}", value)])
    printed = capsys.readouterr().err
    assert stopped.value.code == 1
    assert re.search(message, printed), printed
    assert printed.count("\n") == 1 or "--help lists all flags" in printed
    assert not list(tmp_path.glob("out*"))


def test_no_jieba_is_said_before_anything_is_computed(tmp_path, vocab_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "jieba", None)
    note_path(vocab_path).write_text('{"kind": "jieba", "dictionary": "", "width": "none"}', encoding="utf-8")
    with pytest.raises(SystemExit):
        command(tmp_path, "我爱北京\n", "--segment")
    assert "jieba is not installed" in capsys.readouterr().err


def test_a_full_disk_is_said_and_what_was_there_stays(tmp_path, vocab_path, capsys, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    (tmp_path / "out.npz").write_bytes(b"of before")
    monkeypatch.setattr(np.lib.format, "write_array", full)
    with pytest.raises(SystemExit):
        command(tmp_path, "词3\n")
    assert "out.npz: No space left on device; choose another --output" in capsys.readouterr().err
    assert (tmp_path / "out.npz").read_bytes() == b"of before" and not (tmp_path / "out.npz.tmp").exists()


def test_interrupted_says_so_and_leaves_no_file(tmp_path, vocab_path, capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(script, "embed_ids", interrupted)
    with pytest.raises(SystemExit) as stopped:
        command(tmp_path, "词3\n")
    assert stopped.value.code == 1 and "out.npz was not written" in capsys.readouterr().err
    assert not list(tmp_path.glob("out*"))
