"""Make of a trained language model one file for others to use.

    elmo-publish runs/mine model.tar.gz --text "news of 2008, 2 million words" --licence CC-BY-4.0
    elmo-publish runs/mine model.tar.gz --format fluid

It holds the biLM without softmax and optimizer, its vocabulary, how its text was cut, and a card: what was given by
flags, words, step and dev perplexity. Every call and command that takes a model takes the file, or its http(s) address.
--format fluid writes the variables as Baidu's original did; the vocabulary lies beside them. The same model gives the
same bytes.
"""

import gzip
import json
import sys
import tarfile
import tempfile
from argparse import RawDescriptionHelpFormatter
from pathlib import Path

from elmo_chinese.command import OptionError, command
from elmo_chinese.console import say, size_text
from elmo_chinese.files import check_place, writing
from elmo_chinese.storage.archive import local_folder
from elmo_chinese.storage.checkpoint import INFO_FILE, VOCABULARY_FILE
from elmo_chinese.storage.fluid import write_fluid_variable
from elmo_chinese.storage.pretrained import save_pretrained
from elmo_chinese.training.flags import Parser

from bilm import ElmoEncoder, load_encoder


def card_of(folder: Path, options) -> dict:
    """Return what is told of a model: what flags say, and what its checkpoint knows."""
    path = folder / INFO_FILE
    info = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    dev = info.get("dev") or {}
    card = {
        "text": options.text,
        "licence": options.licence,
        "step": info.get("step"),
        "dev perplexity": dev.get("perplexity"),
    }
    return {name: value for name, value in card.items() if value is not None}


def write_fluid(folder: Path, encoder: ElmoEncoder) -> None:
    """Write the biLM as the original did, one file a variable, and its vocabulary beside them."""
    folder.mkdir()
    for name, parameter in encoder.lstm.fluid_parameters().items():
        write_fluid_variable(folder / name, parameter.numpy())
    (folder / VOCABULARY_FILE).write_bytes(encoder.vocabulary.text.encode("utf-8"))


def pack(folder: Path, output: Path) -> None:
    """Write a `.tar.gz` with the files of a folder, without names, times and owners that differ from run to run."""
    with open(output, "wb") as file, gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
        with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
            for path in sorted(folder.iterdir()):
                entry = tarfile.TarInfo(path.name)
                entry.size = path.stat().st_size
                with open(path, "rb") as source:
                    archive.addfile(entry, source)


def run(options) -> None:
    """The command: read the model, write its parts into a temporary folder, pack them."""
    output = Path(options.output)
    if not output.name.endswith((".tar.gz", ".tgz")):
        raise OptionError(f"{output}: the name of the file must end in .tar.gz")
    check_place(output)
    if output.exists():
        raise OptionError(f"{output} is there already; choose another name")
    source = local_folder(options.model)
    encoder, vocabulary = load_encoder(source, options.vocab_path)
    if vocabulary is None:
        raise OptionError(f"{options.model} has no vocabulary in it; give its file with --vocab_path")
    with tempfile.TemporaryDirectory() as temporary, writing(output) as beside:
        folder = Path(temporary) / "model"
        if options.format == "fluid":
            write_fluid(folder, encoder)
        else:
            settings = {"start": encoder.start, "end": encoder.end, "boundaries": encoder.boundaries}
            parameters = encoder.lstm.fluid_parameters()
            save_pretrained(folder, parameters, encoder.config, settings, vocabulary, card_of(source, options))
        pack(folder, beside)
    sizes = encoder.config
    say(
        f"published   {output} ({size_text(output.stat().st_size)}): {len(vocabulary):,} words, "
        f"{sizes['num_layers']} layers, embed {sizes['embed_size']}, hidden {sizes['hidden_size']}"
    )


def make_parser() -> Parser:
    """Return the parser of the command."""
    parser = Parser(description=__doc__, allow_abbrev=False, formatter_class=RawDescriptionHelpFormatter)
    flag = parser.add_argument
    flag("model", metavar="MODEL", help="folder of a run or a checkpoint, or a .tar.gz of one")
    flag("output", metavar="OUTPUT.tar.gz", help="the file to write; it must not be there yet")
    flag("--format", choices=("elmo", "fluid"), default="elmo", help="fluid: one file a variable, as in the original")
    flag("--text", help="what it was trained on, for the card")
    flag("--licence", help="of the model, for the card")
    flag("--vocab_path", help="the model's vocabulary, if it has none of its own (Fluid folders)")
    return parser


def main(arguments=None) -> None:
    """Run from the command line; user errors end with a message and exit code 1."""
    options = make_parser().parse_args(sys.argv[1:] if arguments is None else arguments)
    with command(options.output, f"interrupted; {options.output} was not written"):
        run(options)


if __name__ == "__main__":
    main()
