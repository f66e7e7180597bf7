"""Run the files of this folder with pytest and print a table of the faults: see run.sh."""

import re
import sys
import time
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
FILES = ("kills.py", "branches.py", "storage.py", "malformed.py", "hostile.py")


class Table:
    """Collects what the tests record as the property "fault": (fault, times tried, outcome)."""

    def __init__(self):
        self.rows = ["| fault | times tried | outcome |", "|---|---|---|"]

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.rows.append(f"| {report.nodeid} |  | **failed** |")
        elif report.skipped:
            self.rows.append(f"| {report.nodeid} | 0 | skipped |")
        for name, row in report.user_properties if report.when == "call" and report.passed else ():
            if name == "fault":
                self.rows.append("| {} | {} | {} |".format(*row))


def main(arguments):
    """Return pytest's exit code."""
    tests = HERE.parent
    sys.path[:0] = map(
        str, [*(path for path in (tests / "elmo_chinese").iterdir() if path.is_dir()), tests, tests.parent]
    )
    table, start = Table(), time.time()
    write = "--write" in arguments
    more = [argument for argument in arguments if argument != "--write"]
    if write and more:
        sys.exit("--write writes the table of all faults: leave the rest out")
    code = pytest.main([*(str(HERE / name) for name in FILES), *more], plugins=[table])
    text = "\n".join(table.rows)
    print(f"\n{text}\n\n{time.time() - start:.0f} s")
    if write:
        path = HERE / "README.md"
        old = path.read_text(encoding="utf-8")
        path.write_text(re.sub(r"\| fault \|.*\|", lambda _: text, old, flags=re.DOTALL), encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
