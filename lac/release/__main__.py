"""Get Baidu's released models and say where they are: see `lac/release/__init__.py`."""

import sys

from elmo_chinese.command import command
from elmo_chinese.console import say
from elmo_chinese.training.flags import Parser

from lac import release


def main(arguments=None):
    """Run from the command line; user errors end with a message and exit code 1."""
    parser = Parser(prog="lac.release", description=release.__doc__.split("\n\n")[0])
    parser.add_argument("source", nargs="?", help="the package's file or folder; none: get it through pip")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    with command():
        folder = release.fetch(options.source)
        for mode in ("lac", "seg"):
            model = release.load(folder, mode)
            say(f"{folder / (mode + '_model')}: {model.text.size} tokens, {len(model.text.tags)} tags")
        release.load_ranker(folder)
        say(f"{folder / 'rank_model'}: weights of words")


if __name__ == "__main__":
    main()
