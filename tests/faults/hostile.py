"""Files made to do harm: nothing in them is executed, and no memory is set aside for what they claim."""

import gzip
import hashlib
import io
import json
import os
import pickle
import resource
import shutil
import struct
import tarfile
import zipfile
from pathlib import Path

from elmo_chinese.files import write_sums
from elmo_chinese.storage import checkpoint
from elmo_chinese.storage.pretrained import PretrainedError, read_pretrained
from elmo_chinese.text.token_cache import ARRAYS, INDEX, encode
from elmo_chinese.text.vocabulary import Vocabulary

import numpy as np
import pytest
from conftest import LM
from test_archive import EVIL, member, with_member
from test_train import SMALL, last

import elmo_embed
import train

RUN = [*SMALL, "--batch_size", "8", "--max_epoch", "1"]
# More than this much more memory than before, in KB, is too much for any of these files.
SPARE = 200 * 2**10


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """The folder of a sound checkpoint."""
    folder = tmp_path_factory.mktemp("sound")
    train.main([*RUN, "--cache_dir", str(folder / "cache"), "--para_save_dir", str(folder / "run")])
    return last(folder / "run").path


@pytest.fixture(autouse=True)
def little_memory():
    """Fail a test in which the process came to use much more memory, and let nothing huge be set aside at all."""
    with open("/proc/self/statm", encoding="ascii") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    old = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + 2**30, old[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, old)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < SPARE


def refused(capsys, main, *arguments):
    """Run a command that must end with one error; return the message."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    assert stopped.value.code == 1 and printed.err.count("error: ") == 1 and "Traceback" not in printed.err
    return printed.err


def vectors(capsys, folder, tmp_path, *more):
    """Have embed.py refuse a model; return the message."""
    output = tmp_path / "vectors.npz"
    message = refused(
        capsys, elmo_embed.main, "--checkpoint", folder, "--input", LM / "dev.txt", "--output", output, *more
    )
    assert not output.exists()
    return message


# --- archives ---


def test_evil_archives(tmp_path, capsys, monkeypatch, record_property):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name, (info, message) in EVIL.items():
        path = with_member(tmp_path / f"{name}.tgz", info)
        before = {entry for entry in tmp_path.rglob("*") if "cache" not in entry.parts}
        error = vectors(capsys, path, tmp_path, "--vocab_path", LM / "vocab.txt")
        assert "refused, nothing is unpacked" in error and message in error
        assert {entry for entry in tmp_path.rglob("*") if "cache" not in entry.parts} == before
        assert not any(entry.is_dir() for entry in (tmp_path / "cache" / "elmo_chinese").iterdir())
    outcome = "refused by name, nothing is unpacked"
    record_property(
        "fault", ("an archive with `..`, absolute paths, links, devices, sizes of terabytes", len(EVIL), outcome)
    )


def test_bombs(tmp_path, capsys, monkeypatch, record_property):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("elmo_chinese.storage.archive.MAX_BYTES", 2**27)
    bombs = []
    for name, header in {
        "zeros": member("elmo/embedding_para", size=2**28),
        "long name": member("././@LongLink", tarfile.GNUTYPE_LONGNAME, size=2**28),
        "pax": member("pax", tarfile.XHDTYPE, size=2**28),
    }.items():
        bombs.append(tmp_path / f"{name}.tgz")
        with gzip.open(bombs[-1], "wb", compresslevel=1) as file:
            file.write(header.tobuf(tarfile.GNU_FORMAT))
            for _ in range(2**8):
                file.write(bytes(2**20))
    for path in bombs:
        assert path.name in vectors(capsys, path, tmp_path, "--vocab_path", LM / "vocab.txt")
    record_property("fault", ("an archive of 1 MB that unpacks to more than is accepted", len(bombs), "refused"))


# --- Fluid folders ---


def varint(value):
    encoded = b""
    while value > 127:
        encoded, value = encoded + bytes([value & 127 | 128]), value >> 7
    return encoded + bytes([value])


def variable(shape, content=b"", kind=5, lod=(), lods=None, length=None, version=0):
    """Return a Fluid variable file that claims whatever it is told to."""
    description = b"\x08" + varint(kind) + b"".join(b"\x10" + varint(size) for size in shape)
    head = struct.pack("<IQ", version, len(lod) if lods is None else lods)
    head += b"".join(struct.pack("<Q", size) + bytes(8) for size in lod)
    return head + struct.pack("<Ii", 0, len(description) if length is None else length) + description + content


ABSURD = {
    "2^40 rows": variable([2**40, 8]),
    "2^63 rows": variable([2**63, 8], bytes(64)),
    "product of 0 modulo 2^64": variable([2**32, 2**32], b""),
    "negative": variable([2**64 - 1, 2**64 - 1], bytes(4)),
    "500 dimensions": variable([1] * 500, bytes(4)),
    "no dimension": variable([], bytes(4)),
    "one dimension": variable([480], bytes(4 * 480)),
    "nothing": variable([0, 8]),
    "description of 2 GB": variable([60, 8], bytes(1920), length=2**31 - 1),
    "description of -1 byte": variable([60, 8], bytes(1920), length=-1),
    "2^64 levels of detail": variable([60, 8], bytes(1920), lods=2**64 - 1),
    "level of detail of 2^64 bytes": variable([60, 8], bytes(1920), lod=[2**64 - 1]),
    "level of detail of 2^63 bytes": variable([60, 8], bytes(1920), lod=[2**63]),
    "endless number": struct.pack("<IQIi", 0, 0, 0, 100) + b"\x08" + b"\xff" * 99,
    "unknown type": variable([60, 8], bytes(1920), kind=2**60),
    "version 1": variable([60, 8], bytes(1920), version=1),
}


@pytest.mark.parametrize("file", ["embedding_para", "lstmp_0.w_1", "fw_layer1_gate_w"])
def test_absurd_sizes_in_a_fluid_header(tmp_path, capsys, record_property, file):
    for name, content in ABSURD.items():
        folder = Path(shutil.copytree(LM / "checkpoint", tmp_path / name))
        (folder / file).write_bytes(content)
        error = vectors(capsys, folder, tmp_path, "--vocab_path", LM / "vocab.txt")
        assert file in error or "the parameters" in error, (name, error)
    record_property("fault", (f"absurd sizes in the header of `{file}`", len(ABSURD), "refused, no memory set aside"))


def test_sizes_that_agree_with_their_files_but_not_with_each_other(tmp_path, capsys, record_property):
    folder = Path(shutil.copytree(LM / "checkpoint", tmp_path / "wide"))
    (folder / "embedding_para").write_bytes(variable([60, 2**16], bytes(60 * 2**18)))
    (folder / "lstmp_0.w_1").write_bytes(variable([2**20, 1], bytes(2**22)))
    assert "embedding_para" in vectors(capsys, folder, tmp_path, "--vocab_path", LM / "vocab.txt")
    record_property("fault", ("20 MB of Fluid files that together claim 1 TB", 1, "refused, no memory set aside"))


# --- checkpoints ---


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def payloads(marker):
    """Return pickles that make a file when they are loaded without care."""
    command, code = f"touch {marker}", f"open({str(marker)!r}, 'w')"
    text = code.encode("ascii")
    calls = [Call(os.system, command), Call(eval, code), Call(exec, code), Call(os.mkdir, str(marker))]
    found = [pickle.dumps({"w": call}, protocol) for call in calls for protocol in (0, 2, 4)]
    found.append(b"(S'" + command.encode("ascii") + b"'\nios\nsystem\n.")  # INST
    found.append(b"cnumpy.testing._private.utils\nrunstring\n(S'" + text.replace(b"'", b'"') + b"'\n}tR.")
    found.append(b"cnumpy\nload\n(S'x'\ntR.")
    found.append(b"cbuiltins\ngetattr\n(cnumpy\nndarray\nS'tofile'\ntR(S'" + str(marker).encode("ascii") + b"'\ntR.")
    found.append(pickle.dumps({"w": np.array([calls[0]], dtype=object)}, 2))
    found.append(b"\x82\x01.")  # EXT1
    found.append(b"P0\n.")  # PERSID
    return found


def test_code_in_parameter_files(sound, tmp_path, capsys, record_property):
    marker, tried = tmp_path / "executed", 0
    for content in payloads(marker):
        for file in (checkpoint.MODEL_FILE, checkpoint.OPTIMIZER_FILE):
            folder = Path(shutil.copytree(sound, tmp_path / f"step_{tried}"))
            (folder / file).write_bytes(content)
            write_sums(folder, checkpoint.PAYLOAD)
            root = tmp_path / "run"
            mine = ["--cache_dir", tmp_path / "cache", "--para_save_dir", root, "--load_dir", folder]
            assert file in refused(capsys, train.main, *RUN, *mine)
            if file == checkpoint.MODEL_FILE:
                assert file in vectors(capsys, folder, tmp_path)
            tried += 1
    assert not marker.exists()
    outcome = "refused, nothing is executed (checksums were forged)"
    record_property("fault", ("calls of functions in `model.pdparams` and `model.pdopt`", tried, outcome))


def npz(arrays, compressed=False):
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **arrays)
    return file.getvalue()


def claiming(shape, kind="<f4"):
    """Return an `.npz` with one array whose header claims a shape."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": kind, "fortran_order": False, "shape": shape})
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("hidden.npy", header.getvalue() + bytes(64))
    return file.getvalue()


def test_code_and_absurd_sizes_in_state_npz(sound, tmp_path, capsys, record_property):
    marker = tmp_path / "executed"
    with np.load(sound / checkpoint.STATE_FILE) as arrays:
        good = {name: arrays[name] for name in arrays.files}
    evil = np.array([Call(os.system, f"touch {marker}")], dtype=object)
    contents = [
        npz({**good, "hidden": evil}),
        npz({**good, "corpus": evil}),
        npz({**good, "more": np.zeros(2**26, np.int8)}, compressed=True),
        claiming((2**40,)),
        claiming((2**31, 2**31, 2**31)),
        claiming((-1, -16)),
        claiming((2**62,), "<U1"),
        claiming((16,), "|O"),
        b"PK\5\6" + bytes(18),
        pickle.dumps(evil),
    ]
    for number, content in enumerate(contents):
        folder = Path(shutil.copytree(sound, tmp_path / f"step_{number}"))
        (folder / checkpoint.STATE_FILE).write_bytes(content)
        write_sums(folder, checkpoint.PAYLOAD)
        mine = ["--cache_dir", tmp_path / "cache", "--para_save_dir", tmp_path / "run", "--load_dir", folder]
        error = refused(capsys, train.main, *RUN, *mine)
        assert checkpoint.STATE_FILE in error or "no position" in error, error
    assert not marker.exists()
    record_property(
        "fault", ("calls and absurd sizes in `state.npz`", len(contents), "refused, nothing executed or set aside")
    )


def test_absurd_sizes_in_parameter_files(sound, tmp_path, capsys, record_property):
    shape = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(L%dL\ntS'b'\ntR."
    contents = [
        shape % 2**40,
        b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x.",  # BINBYTES8
        b"\x80\x04B" + struct.pack("<I", 2**32 - 1) + b"x.",  # BINBYTES
        b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"x.",  # FRAME
        b"\x80\x05\x96" + struct.pack("<Q", 2**62) + b"x.",  # BYTEARRAY8
        b"\x80\x02}r" + struct.pack("<I", 2**32 - 1) + b"s.",  # LONG_BINPUT: a memo of 2^32 places
        b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"x.",  # LONG4
        b"(" * 10**6,
        b"]" * 10**6 + b"a" * 10**6 + b".",
        pickle.dumps({"lstm.embedding": np.zeros((60, 8), np.float32)}, 4).replace(b"K<K\x08", b"K\xffK\xff"),
    ]
    for number, content in enumerate(contents):
        folder = Path(shutil.copytree(sound, tmp_path / f"step_{number}"))
        (folder / checkpoint.MODEL_FILE).write_bytes(content)
        write_sums(folder, checkpoint.PAYLOAD)
        with pytest.raises(PretrainedError, match=checkpoint.MODEL_FILE):
            read_pretrained(folder, ["embedding_para"])
        assert checkpoint.MODEL_FILE in vectors(capsys, folder, tmp_path)
    record_property("fault", ("absurd sizes in `model.pdparams`", len(contents), "refused, no memory set aside"))


def test_absurd_sizes_in_checkpoint_json(sound, tmp_path, capsys, record_property):
    tried = 0
    for name in ("vocab_size", "embed_size", "hidden_size", "num_layers"):
        for value in (2**20, 2**62, -1, 0, 1.5, "8", None, True, [8]):
            info = json.loads((sound / checkpoint.INFO_FILE).read_text(encoding="utf-8"))
            info["model"][name] = value
            if name in info["flags"]:
                info["flags"][name] = value
            folder = Path(shutil.copytree(sound, tmp_path / f"step_{tried}"))
            (folder / checkpoint.INFO_FILE).write_text(json.dumps(info), encoding="utf-8")
            write_sums(folder, checkpoint.PAYLOAD)
            assert checkpoint.INFO_FILE in vectors(capsys, folder, tmp_path)
            if name in info["flags"]:
                flag = RUN.index(f"--{name}") if f"--{name}" in RUN else None
                mine = RUN if flag is None else RUN[:flag] + RUN[flag + 2 :]
                more = ["--cache_dir", tmp_path / "cache", "--para_save_dir", tmp_path / "run", "--load_dir", folder]
                assert folder.name in refused(capsys, train.main, *mine, *more)
            tried += 1
    record_property("fault", ("absurd sizes in `checkpoint.json`", tried, "refused, no memory set aside"))


def test_code_in_a_cache(tmp_path, capsys, record_property):
    words, marker = Vocabulary(LM / "vocab.txt"), tmp_path / "executed"
    folder, contents = encode([LM / "train.txt"], words, tmp_path).mapped[0][0].parent, payloads(marker)
    names = (*ARRAYS, INDEX)
    for content in contents:
        for name in names:
            before = [(folder / array).read_bytes() for array in ARRAYS]
            digest = hashlib.sha256(content).hexdigest().encode("ascii")
            (folder / name).write_bytes(content + (b"\n" + digest if name == INDEX else bytes(-len(content) % 8)))
            encode([LM / "train.txt"], words, tmp_path)
            assert "it is made anew" in capsys.readouterr().out
            assert [(folder / array).read_bytes() for array in ARRAYS] == before
    assert not marker.exists()
    record_property(
        "fault", ("the same calls in the reader's cache", len(names) * len(contents), "made anew, nothing is executed")
    )
