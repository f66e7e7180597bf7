"""Make a static inference model of a reader: one that runs without the Python code of its network.

    python -m mrc.export --model mrc_model --output mrc_exported

    mrc_exported/
      reader.pdmodel, reader.pdiparams   program (Paddle 3: reader.json) and parameters, for Paddle Inference too: ids
                                         of questions and passages → logarithms of the probabilities that an answer
                                         starts, and that it ends, at each word; float32 [questions, documents · words]
                                         twice
      vocabulary.txt                     words of the embedding, in the form of `mrc.model.key`
      elmo_vocabulary.txt                words of the biLM, with ELMo
      limits.json                        words of a question, a passage and an answer
      SHA256SUMS                         checksums of the files above

`inputs` makes the arrays that the program takes; docs/reading.md lists them. How Paddle Inference is set:
docs/export.md.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Dict, List, Optional, Sequence

from elmo_chinese.command import command
from elmo_chinese.console import say
from elmo_chinese.files import check_apart, write_sums, writing
from elmo_chinese.network.program import save_program
from elmo_chinese.text.reading import InputError
from elmo_chinese.training.batches import pad
from elmo_chinese.training.flags import Parser

import numpy as np
from paddle.static import InputSpec

from mrc import model as reading
from mrc.model import Encoded, Model
from mrc.network import Exported

PROGRAM = "reader"
# The arrays that a program takes, and their numbers of axes; the last four with ELMo alone.
AXES = {
    "questions": 2,
    "question_lengths": 1,
    "passages": 2,
    "passage_lengths": 1,
    "documents": 2,
    "there": 2,
    "sentences": 2,
    "sentence_lengths": 1,
    "question_places": 2,
    "passage_places": 2,
}


def inputs(model: Model, encoded: Encoded, groups: Sequence[int]) -> Dict[str, np.ndarray]:
    """Return some groups as the program takes them, by the names of `mrc.network.Exported.forward`."""
    plain = encoded._replace(elmo=None)
    batch = reading.make_batch(model, plain, groups)
    arrays = {name: tensor.numpy() for name, tensor in batch._asdict().items() if tensor is not None}
    if encoded.elmo is None:
        return arrays
    texts = [[encoded.elmo[n] for group in groups for n in of[group]] for of in (encoded.questions, encoded.passages)]
    sentences = [ids for rows in texts for text in rows for ids in text]
    arrays["sentences"], width = pad(sentences), max(map(len, sentences))
    arrays["sentence_lengths"] = np.array([len(ids) for ids in sentences], np.int64)
    start = 0
    for name, rows in zip(("question_places", "passage_places"), texts):
        places = []
        for text in rows:
            places.append(np.concatenate([(start + n) * width + np.arange(len(ids)) for n, ids in enumerate(text)]))
            start += len(text)
        arrays[name] = pad(places)
    return arrays


def save(model: Model, folder: Path) -> None:
    """Write the static model of a reader; the folder appears when it is complete.

    Raises:
        InputError: it is there already.
        OSError: it cannot be written, or another process was quicker.
    """
    if str(folder).encode("utf-8", "replace").decode("utf-8") != str(folder):
        raise InputError(f"--output {folder}: Paddle writes programs under names in UTF-8 only; choose another name")
    if os.path.lexists(folder):
        raise InputError(f"{folder} is there already; choose another --output, or delete it first")
    with writing(folder) as beside:
        beside.mkdir()
        network = Exported(model.reader)
        network.eval()
        specs = [
            InputSpec([None] * axes, "float32" if name == "there" else "int64", name) for name, axes in AXES.items()
        ]
        save_program(network, beside / PROGRAM, specs if model.elmo_vocabulary else specs[:6])
        texts = {"vocabulary.txt": model.vocabulary.text, "limits.json": json.dumps(model.limits._asdict()) + "\n"}
        if model.elmo_vocabulary:
            texts["elmo_vocabulary.txt"] = model.elmo_vocabulary.text
        for name, text in texts.items():
            (beside / name).write_bytes(text.encode("utf-8"))
        write_sums(beside, sorted(path.name for path in beside.iterdir()))


def main(arguments: Optional[List[str]] = None) -> None:
    """Run from the command line; user errors end with a message and exit code 1."""
    parser = Parser(prog="mrc.export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of mrc.train")
    parser.add_argument("--output", required=True, help="folder to make")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    with command(options.output):
        check_apart("--output", [options.output], [options.model])
        save(reading.load(options.model), Path(options.output))
        say(f"exported to {options.output}")


if __name__ == "__main__":
    main()
