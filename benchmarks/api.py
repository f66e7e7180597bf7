"""Make pages of the public interface from its docstrings: python benchmarks/api.py [--output FOLDER]"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pdoc  # noqa: E402

import bilm  # noqa: E402, F401  brings Paddle, which cannot be imported within pdoc

MODULES = ("bilm", "lac.release.interface")


def main():
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", default="build/api", help="folder of the pages; index.html is the first")
    output = Path(parser.parse_args().output)
    pdoc.render.configure(docformat="google", show_source=False)
    pdoc.pdoc(*MODULES, output_directory=output)
    print(f"{output / 'index.html'}: {', '.join(MODULES)}")


if __name__ == "__main__":
    main()
