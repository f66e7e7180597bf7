"""Make a static inference model of a tagger: one that runs without the Python code of its network.

    python -m lac.export --model lac_model --output lac_exported
    echo 上海的房价连续四个月保持平稳。 | python -m lac.predict --model lac_exported

    lac_exported/
      tagger.pdmodel, tagger.pdiparams   program (Paddle 3: tagger.json) and parameters, for Paddle Inference too:
                                         word_ids int64 [batch, words], lengths int64 [batch], with ELMo also
                                         elmo_ids int64 [batch, words] → the best tags, int64 [batch, words]
      vocabulary.txt, tag.dic, q2b.dic   words of the embedding, tags by id, replacements before the look-up
      text.json, dictionary.txt          how text is cut and looked up, and the dictionary that it is cut by
      elmo_vocabulary.txt                words of the biLM, with ELMo
      SHA256SUMS                         checksums of the files above

How fast it is, and how Paddle Inference is set for it: docs/export.md.
"""

import argparse
import json
import os
import sys
from pathlib import Path

from elmo_chinese.command import command
from elmo_chinese.console import say
from elmo_chinese.files import check_apart, write_sums, writing
from elmo_chinese.network.program import save_program
from elmo_chinese.text.reading import InputError
from elmo_chinese.training.flags import Parser

from paddle.static import InputSpec

from lac import model as tagging
from lac.model import PROGRAM, Model
from lac.network import TagDecoder
from lac.release import load_any


def save(model: Model, folder: Path) -> None:
    """Write the static model of a tagger; the folder appears when it is complete.

    Raises:
        InputError: it is there already, or the model is an exported one.
        OSError: it cannot be written, or another process was quicker.
    """
    if model.tagger is None:
        raise InputError("this model was exported already; --model takes one of lac.train")
    if str(folder).encode("utf-8", "replace").decode("utf-8") != str(folder):
        raise InputError(f"--output {folder}: Paddle writes programs under names in UTF-8 only; choose another name")
    if os.path.lexists(folder):
        raise InputError(f"{folder} is there already; choose another --output, or delete it first")
    with writing(folder) as beside:
        _write(model, beside)


def _write(model: Model, beside: Path) -> None:
    beside.mkdir()
    network = TagDecoder(model.tagger)
    network.eval()
    specs = [InputSpec([None, None], "int64", "word_ids"), InputSpec([None], "int64", "lengths")]
    if model.elmo_vocabulary:
        specs.append(InputSpec([None, None], "int64", "elmo_ids"))
    save_program(network, beside / PROGRAM, specs)
    texts = {
        "vocabulary.txt": tagging.vocabulary_text(model),
        "tag.dic": "".join(tag + "\n" for tag in model.text.tags),
        "q2b.dic": "".join(f"{chr(key)}\t{value}\n" for key, value in model.text.table.items()),
        tagging.TEXT_FILE: json.dumps(model.text.info()) + "\n",
        tagging.DICTIONARY: model.text.segmenter.dictionary,
    }
    if model.elmo_vocabulary:
        texts[tagging.ELMO_VOCABULARY] = model.elmo_vocabulary.text
    for name, text in texts.items():
        (beside / name).write_bytes(text.encode("utf-8"))
    write_sums(beside, sorted(path.name for path in beside.iterdir()))


def main(arguments=None):
    """Run from the command line; user errors end with a message and exit code 1."""
    parser = Parser(prog="lac.export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", required=True, help="folder of lac.train or of a released model; or lac, seg: the released ones"
    )
    parser.add_argument("--output", required=True, help="folder to make")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    with command(options.output):
        check_apart("--output", [options.output], [options.model])
        save(load_any(options.model), Path(options.output))
        say(f"exported to {options.output}")


if __name__ == "__main__":
    main()
