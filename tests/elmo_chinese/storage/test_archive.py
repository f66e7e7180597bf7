"""elmo_chinese/storage/archive.py: archives and addresses become folders."""

import gzip
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from elmo_chinese import files
from elmo_chinese.storage import archive
from elmo_chinese.storage.archive import local_folder
from elmo_chinese.storage.pretrained import read_fluid_variable
from elmo_chinese.text.reading import InputError

import pytest
from conftest import LM, ROOT

MODEL = LM / "checkpoint"
LOCAL_FOLDER = """
import sys
from elmo_chinese.console import shown
from elmo_chinese.storage.archive import local_folder
with shown():
    print(local_folder(*sys.argv[1:]))
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(archive, "PAUSE", 0.0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def packed(path, top="elmo/"):
    """Write the golden Fluid folder as an archive, incompressible bytes added so that it has some length."""
    with tarfile.open(path, "w:gz") as tar:
        if top:
            tar.add(MODEL, top, recursive=False)
        for entry in sorted(MODEL.iterdir()):
            tar.add(entry, top + entry.name)
        extra = os.urandom(200_000)
        member = tarfile.TarInfo(top + "extra")
        member.size = len(extra)
        tar.addfile(member, io.BytesIO(extra))
    return path


def is_the_model(folder):
    return all((folder / entry.name).read_bytes() == entry.read_bytes() for entry in MODEL.iterdir())


@contextmanager
def server(content, ranges=True, cut=(), announced=None, status=200, etag='"1"', stall=None):
    """Serve `content` at any path; yield its address and the list of Range headers that were asked for.

    Args:
        ranges: whether the server knows Range.
        cut: for each request in turn, after how many bytes the connection is closed (None: never).
        announced: Content-Length if not the true one.
        status: answer of every request.
        etag: version that the server tells; None: it tells none.
        stall: send so many bytes of the first answer, then wait until the test is over.
    """
    asked, cuts, over = [], list(cut), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            wanted = self.headers.get("Range")
            asked.append(wanted)
            first = int(wanted[6:-1]) if wanted and ranges and self.headers.get("If-Range", etag) == etag else 0
            body = content[first:]
            if status != 200:
                return self.send_error(status)
            if first and not body:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                return self.end_headers()
            self.send_response(206 if first else 200)
            if first:
                self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
            if etag:
                self.send_header("ETag", etag)
            self.send_header("Content-Length", str(announced or len(body)))
            self.end_headers()
            if stall and len(asked) == 1:
                self.wfile.write(body[:stall])
                over.wait(60)
            else:
                self.wfile.write(body[: cuts.pop(0) if cuts else None])
            self.close_connection = True

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{http.server_port}/elmo.tar.gz?x=1", asked
        finally:
            over.set()
            http.shutdown()


@pytest.fixture
def content(tmp_path):
    return packed(tmp_path / "served.tar.gz").read_bytes()


def leftovers(cache):
    """Return what is in a cache besides complete folders."""
    return [entry.name for entry in cache.iterdir() if entry.suffix]


def part_of(address, cache):
    """Return where a download of an address is kept while it is under way."""
    return cache / (hashlib.sha256(address.encode("utf-8")).hexdigest()[:32] + ".part")


# --- folders and archives ---


def test_a_folder_stays_as_it_is(tmp_path):
    assert local_folder(str(MODEL), tmp_path / "cache") == MODEL
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("top", ["elmo/", "", "./", "released/elmo/"])
@pytest.mark.usefixtures("shown")
def test_an_archive_is_unpacked_once_whatever_folders_are_in_it(tmp_path, top, capsys):
    path, cache = packed(tmp_path / "elmo.tar.gz", top), tmp_path / "cache"
    folder = local_folder(path, cache)
    assert is_the_model(folder) and cache in folder.parents
    assert "unpacking" in capsys.readouterr().out
    assert local_folder(path.rename(tmp_path / "renamed.tgz"), cache) == folder
    assert capsys.readouterr().out == ""
    assert leftovers(cache) == []


def test_an_archive_with_other_content_is_unpacked_beside(tmp_path):
    path = tmp_path / "elmo.tgz"
    folders = {local_folder(packed(path), tmp_path / "cache") for _ in range(2)}
    assert len(folders) == 2 and all(map(is_the_model, folders))


def test_the_cache_is_where_the_system_keeps_caches(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert tmp_path / "xdg" / "elmo_chinese" in local_folder(packed(tmp_path / "elmo.tgz")).parents
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert files.cache_folder() == Path.home() / ".cache" / "elmo_chinese"


def test_what_a_killed_process_left_does_not_count(tmp_path):
    path, cache = packed(tmp_path / "elmo.tgz"), tmp_path / "cache"
    folder = local_folder(path, cache)
    top = cache / folder.relative_to(cache).parts[0]
    top.rename(top.with_name(top.name + ".0123abcd.tmp"))
    (top.with_name(top.name + ".0123abcd.tmp") / "elmo" / "embedding_para").write_bytes(b"half of it")
    (top.with_name(top.name + ".0123abcd.tmp") / "elmo" / "more").write_bytes(b"")
    assert is_the_model(local_folder(path, cache)) and not (folder / "more").exists()
    assert leftovers(cache) == []


def test_two_processes_at_once_unpack_once(tmp_path):
    path, cache = packed(tmp_path / "elmo.tgz"), tmp_path / "cache"
    command = [sys.executable, "-c", LOCAL_FOLDER, str(path), str(cache)]
    both = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    printed = [process.communicate(timeout=60)[0].splitlines() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted(len(lines) for lines in printed) == [1, 2] and printed[0][-1] == printed[1][-1]


# --- what is refused ---


def member(name="elmo/x", type=tarfile.REGTYPE, size=0, **more):
    info = tarfile.TarInfo(name)
    info.type, info.size = type, size
    for key, value in more.items():
        setattr(info, key, value)
    return info


EVIL = {
    "absolute": (member("/tmp/w3_evil"), "has an absolute path"),
    "drive": (member("C:evil"), "has an absolute path"),
    "parent": (member("elmo/../../evil"), "leads out of the folder"),
    "backslashes": (member("elmo\\..\\..\\evil"), "leads out of the folder"),
    "parent folder": (member("..", tarfile.DIRTYPE), "leads out of the folder"),
    "symbolic link": (member(type=tarfile.SYMTYPE, linkname="/etc"), "neither a plain file nor a folder"),
    "hard link": (member(type=tarfile.LNKTYPE, linkname="elmo/embedding_para"), "is a hard link to another; of a run"),
    "device": (member(type=tarfile.CHRTYPE, devmajor=1, devminor=3), "neither a plain file nor a folder"),
    "pipe": (member(type=tarfile.FIFOTYPE), "neither a plain file nor a folder"),
    "sparse": (member(type=tarfile.GNUTYPE_SPARSE), "neither a plain file nor a folder"),
    "unknown type": (member(type=b"Z"), "neither a plain file nor a folder"),
    "twice": (member("elmo/embedding_para"), "comes twice"),
    "file for folder": (member("elmo"), "comes twice"),
    "huge": (member(size=2**40), "brings the total to 1,099,511,"),
    "negative": (member(size=-512), "claims a size of -512"),
}


def with_member(path, info, top="elmo/"):
    """Write the golden folder, then a member whose header alone may promise anything."""
    with tarfile.open(path, "w:gz", format=tarfile.GNU_FORMAT) as tar:
        for entry in sorted(MODEL.iterdir()):
            tar.add(entry, top + entry.name)
        tar.fileobj.write(info.tobuf(tarfile.GNU_FORMAT))
        tar.offset += tarfile.BLOCKSIZE
    return path


@pytest.mark.parametrize("name", EVIL)
def test_an_evil_member_is_named_and_nothing_is_unpacked(tmp_path, name):
    info, message = EVIL[name]
    path, cache = with_member(tmp_path / "evil.tgz", info), tmp_path / "cache"
    with pytest.raises(InputError, match=message) as caught:
        local_folder(path, cache)
    assert "evil.tgz: refused" in str(caught.value) and repr(info.name) in str(caught.value)
    assert not any(cache.iterdir())
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["cache", "evil.tgz"]


def test_too_many_members_or_bytes_are_refused(tmp_path, monkeypatch):
    path = packed(tmp_path / "elmo.tgz")
    monkeypatch.setattr(archive, "MAX_MEMBERS", 5)
    with pytest.raises(InputError, match="is number 6, more than the 5 that are accepted"):
        local_folder(path, tmp_path / "cache")
    monkeypatch.setattr(archive, "MAX_MEMBERS", 100)
    monkeypatch.setattr(archive, "MAX_BYTES", 100_000)
    with pytest.raises(InputError, match="member 'elmo/extra' brings the total to"):
        local_folder(path, tmp_path / "cache")


def test_a_header_that_would_fill_the_memory_is_refused(tmp_path):
    path = tmp_path / "bomb.tgz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(member("././@LongLink", tarfile.GNUTYPE_LONGNAME, size=2**33).tobuf(tarfile.GNU_FORMAT))
        file.write(bytes(2**20))
    with pytest.raises(InputError, match="bomb.tgz: not a .tar.gz archive.*too long"):
        local_folder(path, tmp_path / "cache")


@pytest.mark.parametrize("kind", ["empty", "text", "no gzip", "cut", "cut in the trailer", "flipped bit", "no tar"])
def test_a_damaged_archive_is_named(tmp_path, kind):
    path = packed(tmp_path / "elmo.tar.gz")
    good = path.read_bytes()
    spoiled = {
        "empty": b"",
        "text": b"<html>not found</html>",
        "no gzip": gzip.decompress(good),
        "cut": good[: len(good) // 2],
        "cut in the trailer": good[:-4],
        "flipped bit": good[:-6] + bytes([good[-6] ^ 1]) + good[-5:],
        "no tar": gzip.compress(b"hello" * 1000),
    }[kind]
    path.write_bytes(spoiled)
    with pytest.raises(InputError, match=r"elmo.tar.gz: not a .tar.gz archive, or a damaged one"):
        local_folder(path, tmp_path / "cache")
    assert not any((tmp_path / "cache").iterdir())


def test_no_model_and_several_models_are_errors(tmp_path):
    with tarfile.open(tmp_path / "none.tgz", "w:gz") as tar:
        tar.add(MODEL / "softmax_bias", "elmo/softmax_bias")
    with pytest.raises(InputError, match="none.tgz: no embedding_para and no model.pdparams in it"):
        local_folder(tmp_path / "none.tgz", tmp_path / "cache")
    with tarfile.open(tmp_path / "two.tgz", "w:gz") as tar:
        tar.add(MODEL, "a")
        tar.add(MODEL, "b")
    with pytest.raises(InputError, match=r"two.tgz: holds 2 models \(a, b\); unpack it"):
        local_folder(tmp_path / "two.tgz", tmp_path / "cache")


def test_nothing_there_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no such folder or archive .looked from"):
        local_folder(tmp_path / "none.tar.gz", tmp_path / "cache")


@pytest.mark.skipif(os.name == "nt", reason="POSIX")
def test_a_cache_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(InputError, match="cannot write .*file.*set XDG_CACHE_HOME"):
        local_folder(packed(tmp_path / "elmo.tgz"), tmp_path / "file" / "cache")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_is_an_error_with_the_file(tmp_path):
    with open("/dev/full", "wb", buffering=0) as file:
        with pytest.raises(InputError, match="cannot write .*here: No space left on device; make room"):
            archive._write(file, b"12", tmp_path / "here")


# --- addresses ---


@pytest.mark.usefixtures("shown")
def test_an_address_is_downloaded_once(tmp_path, content, capsys):
    cache = tmp_path / "cache"
    with server(content) as (address, asked):
        folder = local_folder(address, cache)
    printed = capsys.readouterr().out
    assert is_the_model(folder) and asked == [None] and leftovers(cache) == []
    assert f"downloading {address}: {len(content) / 1e6:.1f} MB" in printed and "MB/s  left 0s" in printed
    assert local_folder(address, cache) == folder and capsys.readouterr().out == ""  # the server is gone


@pytest.mark.usefixtures("shown")
def test_a_download_shows_a_bar_on_a_terminal(tmp_path, content, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(os, "get_terminal_size", lambda: os.terminal_size((80, 24)))
    with server(content) as (address, _):
        local_folder(address, tmp_path / "cache")
    assert "\r\033[K[####################]" in capsys.readouterr().out


@pytest.mark.usefixtures("shown")
def test_a_cut_connection_is_gone_on_from_where_it_was_cut(tmp_path, content, capsys):
    with server(content, cut=[70_000, 60_001]) as (address, asked):
        assert is_the_model(local_folder(address, tmp_path / "cache"))
    assert asked == [None, "bytes=70000-", "bytes=130001-"]
    printed = capsys.readouterr().out
    assert f"70,000 of {len(content):,} bytes came; trying again" in printed and "resuming from 0.1 MB" in printed


def test_killed_between_two_versions_of_the_file_they_are_not_spliced(tmp_path, content, monkeypatch):
    """The server has another version now; the process is killed when it has noted that."""
    cache, part = tmp_path / "cache", tmp_path / "cache" / "x.part"
    cache.mkdir()
    old = os.urandom(1000)
    part.write_bytes(old)
    part.with_suffix(".tag").write_text('"0"', encoding="utf-8")
    note = archive._note_version

    def killed(headers, tag):
        note(headers, tag)
        raise KeyboardInterrupt

    with server(content) as (address, asked):
        monkeypatch.setattr(archive, "_note_version", killed)
        with pytest.raises(KeyboardInterrupt):
            archive.download(address, part)
        monkeypatch.undo()
        archive.download(address, part)
    assert part.read_bytes() == content and asked == ["bytes=1000-", None]


def test_a_later_call_goes_on_too(tmp_path, content):
    cache = tmp_path / "cache"
    with server(content, cut=[70_000, 0, 0]) as (address, asked):
        with pytest.raises(InputError, match="3 times without getting further; 70,000 bytes are kept"):
            local_folder(address, cache)
        assert not any(entry.is_dir() for entry in cache.iterdir())
        assert is_the_model(local_folder(address, cache))
    assert asked == [None] + 3 * ["bytes=70000-"]


def test_a_killed_download_is_gone_on_with(tmp_path, content):
    cache = tmp_path / "cache"
    with server(content, stall=80_000) as (address, asked):
        process = subprocess.Popen([sys.executable, "-c", LOCAL_FOLDER, address, str(cache)], cwd=ROOT)
        until = time.time() + 60
        while time.time() < until and sum(path.stat().st_size for path in cache.glob("*.part")) < 65_536:
            time.sleep(0.05)
        process.kill()
        process.wait()
        assert not any(entry.is_dir() for entry in cache.iterdir())
        assert is_the_model(local_folder(address, cache))
    assert len(asked) == 2 and 65_536 <= int(asked[1][6:-1]) <= 80_000


def test_a_server_without_range_sends_all_of_it_again(tmp_path, content):
    with server(content, ranges=False, cut=[70_000]) as (address, asked):
        assert is_the_model(local_folder(address, tmp_path / "cache"))
    assert asked == [None, "bytes=70000-"]


@pytest.mark.parametrize("etag", ['"1"', None])
def test_another_version_of_the_file_is_not_joined_to_the_first(tmp_path, content, etag):
    cache = tmp_path / "cache"
    cache.mkdir()
    newer = packed(tmp_path / "newer.tgz").read_bytes()
    with server(newer, etag='"2"') as (address, asked):
        part = part_of(address, cache)
        part.write_bytes(content[:70_000])
        if etag:
            part.with_suffix(".tag").write_text(etag, encoding="utf-8")
            assert is_the_model(local_folder(address, cache))
        else:  # nobody can know it, but the archive's checksum tells, and the next call starts afresh
            with pytest.raises(InputError, match="damaged"):
                local_folder(address, cache)
            assert is_the_model(local_folder(address, cache))
    assert asked[0] == "bytes=70000-"


def test_a_complete_download_is_not_fetched_again(tmp_path, content):
    with server(content) as (address, asked):
        part = part_of(address, tmp_path)
        part.write_bytes(content)
        assert is_the_model(local_folder(address, tmp_path))
    assert asked == [f"bytes={len(content)}-"] and not part.exists()


def test_more_than_the_file_is_there_so_it_is_fetched_anew(tmp_path, content):
    with server(content) as (address, asked):
        part = part_of(address, tmp_path)
        part.write_bytes(content + b"more")
        assert is_the_model(local_folder(address, tmp_path))
    assert asked == [f"bytes={len(content) + 4}-", None]


def test_a_wrong_length_is_an_error(tmp_path, content):
    with server(content, announced=len(content) + 10, ranges=False) as (address, _):
        with pytest.raises(InputError, match=f"{len(content):,} of {len(content) + 10:,} bytes came, 3 times"):
            local_folder(address, tmp_path / "cache")
    assert not any(entry.is_dir() for entry in (tmp_path / "cache").iterdir())


def test_a_file_beyond_the_bound_is_refused_before_it_is_fetched(tmp_path, content, monkeypatch):
    monkeypatch.setattr(archive, "MAX_BYTES", 1000)
    with server(content) as (address, _), pytest.raises(InputError, match="more than the 1,000 that are accepted"):
        local_folder(address, tmp_path / "cache")


def test_not_found_is_said_at_once_and_a_busy_server_is_asked_again(tmp_path, content):
    with server(content, status=404) as (address, asked):
        with pytest.raises(InputError, match="elmo.tar.gz.*: the server answers 404 Not Found"):
            local_folder(address, tmp_path / "cache")
        assert len(asked) == 1
    with server(content, status=503) as (address, asked):
        with pytest.raises(InputError, match="the server answers 503 .*, 3 times without getting further"):
            local_folder(address, tmp_path / "cache")
        assert len(asked) == 3


def test_no_server_and_no_address(tmp_path, content):
    with server(content) as (address, _):
        pass
    with pytest.raises(InputError, match="connection failed: .*refused"):
        local_folder(address, tmp_path / "cache")
    with pytest.raises(InputError, match="http://.nowhere: not a usable address"):
        local_folder("http://[nowhere", tmp_path / "cache")


def test_a_disk_that_fills_while_a_download_is_unpacked_keeps_the_download(tmp_path, content, monkeypatch):
    cache = tmp_path / "cache"
    with server(content) as (address, requests):
        monkeypatch.setattr(archive, "_extract_member", full)
        with pytest.raises(InputError, match="No space left on device; make room"):
            archive.local_folder(address, cache)
        assert part_of(address, cache).read_bytes() == content
        monkeypatch.undo()
        assert archive.local_folder(address, cache).is_dir()


def full(*arguments):
    with archive._written(arguments[-1]):
        raise OSError(28, "No space left on device")


def test_a_page_instead_of_an_archive_is_not_kept(tmp_path, content):
    with server(b"<html>please log in</html>") as (address, _):
        with pytest.raises(InputError, match=r"127.0.0.1.*not a .tar.gz archive"):
            local_folder(address, tmp_path / "cache")
    assert leftovers(tmp_path / "cache") == []


def test_the_variables_in_an_unpacked_folder_are_readable(tmp_path):
    folder = local_folder(packed(tmp_path / "elmo.tgz"), tmp_path / "cache")
    assert read_fluid_variable(folder / "embedding_para").shape == (60, 8)
