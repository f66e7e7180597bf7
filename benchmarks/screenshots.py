"""Pictures of VisualDL's pages about runs: python benchmarks/screenshots.py --output docs LOG_FOLDER...

    python benchmarks/screenshots.py --output docs checkpoints/log lac_model/log

Writes what the logs have something for: curves.png (losses and dev perplexity of language models), mix.png (weights
of the ELMo layers in taggers), comparison.png (two or more taggers, or else language models, beside each other, with
the flags in which they differ) and words.png (the vectors of train.py --visualdl_embeddings). A run is called after
the folder that its log is in. Needs Chromium and, for the words, a font: apt-get install -y chromium fonts-wqy-zenhei

Top to bottom: the server, the browser, the pages, the command.
"""

import argparse
import base64
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from elmo_chinese.command import fail  # noqa: E402
from elmo_chinese.training.flags import Parser  # noqa: E402

SECONDS = 120  # for a server or a page to be there
# Chromium takes commands from descriptor 3 and answers on 4.
PIPED = """import os, sys
os.dup2(int(sys.argv[1]), 3)
os.dup2(int(sys.argv[2]), 4)
os.execvp(sys.argv[3], sys.argv[3:])"""


class PageError(RuntimeError):
    """No picture could be made; the message says why."""


def wait_for(condition, what):
    """Return what a function returns as soon as that is true.

    Raises:
        PageError: naming `what`, when that takes too long.
    """
    deadline = time.time() + SECONDS
    while True:
        found = condition()
        if found:
            return found
        if time.time() > deadline:
            raise PageError(f"no {what} within {SECONDS} seconds")
        time.sleep(0.1)


@contextmanager
def serve(folder):
    """Run VisualDL on a folder with logs in it; yields its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # A relative path: given an absolute one, VisualDL 2.5.3 sends a projector's words in place of its vectors.
    folder = Path(folder).resolve()
    command = [str(Path(sys.executable).with_name("visualdl")), "--logdir", folder.name, "--port", str(port)]
    server = subprocess.Popen(command, cwd=folder.parent, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield f"http://127.0.0.1:{port}/app"
    finally:
        server.terminate()
        server.wait()


def fetch(address):
    """Return the bytes at an address of the server, which may still be starting."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def load():
        try:
            return direct.open(address).read()
        except OSError:
            return None

    return wait_for(load, f"answer from {address}")


def ask(address, path, at_least=1):
    """Return the data of an answer of VisualDL's API once there are so many: logs are read while it serves."""

    def enough():
        data = json.loads(fetch(f"{address}/api/{path}").decode("utf-8"))["data"]
        return data if data and len(data) >= at_least else None

    return wait_for(enough, f"data for {path}")


def find_chromium():
    """Return the path of Chromium, None if there is none."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@contextmanager
def browse(program, width=1400, height=1000):
    """Start Chromium without a window; yields `call(method, **parameters)`: its DevTools protocol, for one page.

    Raises:
        PageError: it does not answer, or refuses.
    """
    commands, to_it = os.pipe()
    from_it, answers = os.pipe()
    profile = tempfile.mkdtemp()
    flags = ["--headless=new", "--no-sandbox", "--remote-debugging-pipe", "--hide-scrollbars"]
    flags += ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]  # VisualDL's pages ask hm.baidu.com too
    process = subprocess.Popen(
        [sys.executable, "-c", PIPED, str(commands), str(answers), program, *flags, f"--user-data-dir={profile}"],
        pass_fds=(commands, answers),
        stderr=subprocess.DEVNULL,
    )
    os.close(commands)
    os.close(answers)
    sent, received, session = 0, b"", {}

    def call(method, **parameters):
        nonlocal sent, received
        sent += 1
        message = {"id": sent, "method": method, "params": parameters, **session}
        os.write(to_it, json.dumps(message).encode("utf-8") + b"\0")
        while True:
            while b"\0" not in received:
                more = os.read(from_it, 2**20) if select.select([from_it], [], [], SECONDS)[0] else b""
                if not more:
                    raise PageError(f"{program} does not answer to {method}")
                received += more
            line, received = received.split(b"\0", 1)
            answer = json.loads(line.decode("utf-8"))
            if answer.get("id") != sent:
                continue  # an event
            if "error" in answer:
                raise PageError(f"{program}: {method}: {answer['error']['message']}")
            return answer["result"]

    try:
        target = call("Target.createTarget", url="about:blank")["targetId"]
        session["sessionId"] = call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        yield call
    finally:
        os.close(to_it)  # it ends with its commands
        os.close(from_it)
        process.terminate()
        process.wait()
        shutil.rmtree(profile, ignore_errors=True)  # its helpers may still be writing


def script(call, expression):
    """Return the value of a JavaScript expression in the page."""
    return call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")


def wait_for_text(call, text):
    """Return when the page shows a text."""
    wait_for(lambda: script(call, f"document.body.innerText.includes({json.dumps(text)})"), f"{text!r} on the page")


def screenshot(call):
    """Return the PNG of the page when it has come to rest: two in a row are the same."""
    script(call, "scrollTo(0, 0)")
    taken = [None]

    def same():
        taken.append(base64.b64decode(call("Page.captureScreenshot", format="png")["data"]))
        time.sleep(0.3)
        return taken[-1] == taken[-2]

    wait_for(same, "rest on the page")
    return taken[-1]


def press(call, text):
    """Click on the last place in the page where a text stands alone."""
    found = f"document.evaluate('//*[text()=\"{text}\"]', document, null, XPathResult.ORDERED_NODE_SNAPSHOT_TYPE)"
    script(call, f"(places => places.snapshotItem(places.snapshotLength - 1).click())({found})")


def type_into(call, field, text):
    """Type a text into the field of a selector; again if the page, still busy, has dropped it."""

    def typed():
        if script(call, f"document.querySelector({json.dumps(field)}).value") == text:
            return True
        script(call, f"document.querySelector({json.dumps(field)}).select()")
        call("Input.insertText", text=text)
        time.sleep(0.5)
        return False

    wait_for(typed, f"{text!r} in a field of the page")


def curves_page(call, address, pattern):
    """Return the picture of the curves whose tags a regular expression finds."""
    drawn = "document.querySelectorAll('canvas').length"
    call("Page.navigate", url=f"{address}/scalar")
    wait_for(lambda: script(call, drawn), "curve on the page")
    type_into(call, "input[placeholder*=tags]", pattern)
    wait_for_text(call, "Search Result")
    wait_for(lambda: script(call, drawn), "curve on the page")
    return screenshot(call)


def comparison_page(call, address):
    """Return the picture of the table of runs, without the flags that they have in common."""
    runs = ask(address, "hparams/list")
    call("Page.navigate", url=f"{address}/hyper-parameter")
    wait_for_text(call, runs[-1]["name"])
    for name, value in runs[0]["hparams"].items():
        if all(run["hparams"].get(name) == value for run in runs):
            press(call, name)
    return screenshot(call)


def words_page(call, address, find=""):
    """Return the picture of the projected words, with those marked that have `find` in them."""
    call("Page.navigate", url=f"{address}/high-dimensional")
    wait_for_text(call, "Total variance described")
    press(call, "2D")  # the other turns for ever
    if find:
        press(call, "UMAP")
        wait_for_text(call, "Neighbors")
        time.sleep(1)
        wait_for(lambda: script(call, "!document.body.innerText.includes('Calculating')"), "end of the projection")
        type_into(call, "input[type=text]", find)
        wait_for_text(call, "matched.")
    return screenshot(call)


def copy_logs(logs, folder):
    """Copy log folders to `language_models/` and `taggers/` in a folder, each under its run's name.

    Returns:
        for each of the two the tags of each run, by VisualDL's component.

    Raises:
        PageError: a folder is no log, or two runs have one name.
    """
    from visualdl import LogReader  # slow to import

    found = {"taggers": [], "language_models": []}
    for log in map(Path, logs):
        records = sorted(log.glob("vdlrecords.*.log"))
        if not records:
            raise PageError(f"{log}: no vdlrecords.*.log in it; name the log/ folder of a run")
        tags = LogReader(file_path=str(records[-1])).get_tags()
        kind = "taggers" if any(tag.startswith("epoch/") for tag in tags["scalar"]) else "language_models"
        target = folder / kind / log.resolve().parent.name
        if target.exists():
            raise PageError(f"{log}: another run is called {target.name} too; rename its folder")
        shutil.copytree(log, target)
        found[kind].append(tags)
    return found


def pictures(folder, found, program, find):
    """Yield name and PNG of each picture that the logs have something for; see `copy_logs`."""
    comparable = [kind for kind in found if sum("hyper_parameters" in tags for tags in found[kind]) > 1]
    for kind, runs in found.items():
        if not runs:
            continue
        with serve(folder / kind) as address, browse(program) as call:
            ask(address, "runs", len(runs))
            if kind == "language_models":
                yield "curves", curves_page(call, address, "loss$|dev/perplexity$|grad_norm")
            if any("epoch/gamma" in tags["scalar"] for tags in runs):
                yield "mix", curves_page(call, address, "gamma|mix")
            if comparable[:1] == [kind]:
                yield "comparison", comparison_page(call, address)
            if any("embeddings" in tags for tags in runs):
                ask(address, "embedding/list")
                yield "words", words_page(call, address, find)


def main() -> None:
    """Run from the command line."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("logs", nargs="+", metavar="LOG_FOLDER", help="log/ folders of runs of train.py and lac.train")
    parser.add_argument("--output", required=True, help="folder for the pictures")
    parser.add_argument("--find", default="", help="mark the words that have this in them, on a UMAP projection")
    options = parser.parse_args()
    try:
        program = find_chromium()
        if program is None:
            raise PageError("no chromium in PATH; install it with: apt-get install -y chromium fonts-wqy-zenhei")
        with tempfile.TemporaryDirectory() as folder:
            found = copy_logs(options.logs, Path(folder))
            os.makedirs(options.output, exist_ok=True)
            for name, png in pictures(Path(folder), found, program, options.find):
                path = Path(options.output) / f"{name}.png"
                path.write_bytes(png)
                print(f"{path}  {len(png) // 1000} kB")
    except (PageError, OSError) as error:
        fail(error)


if __name__ == "__main__":
    main()
