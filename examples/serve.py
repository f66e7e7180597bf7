"""Answer for each line of standard input with what `sentiment.py` saved, by Paddle Inference: serve.py FOLDER"""

import json
import sys
from pathlib import Path

import numpy as np
from paddle import inference

from bilm import Vocabulary, batch_to_ids

folder = Path(sys.argv[1])
labels = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
vocabulary = Vocabulary(folder / "vocabulary.txt")

program = folder / ("network.json" if (folder / "network.json").exists() else "network.pdmodel")  # Paddle 3 or 2
config = inference.Config(str(program), str(folder / "network.pdiparams"))
# oneDNN is several times slower at the small products of such loops.
config.disable_mkldnn() if hasattr(config, "disable_mkldnn") else config.disable_onednn()
config.disable_glog_info()
predictor = inference.create_predictor(config)

for line in sys.stdin:
    batch = batch_to_ids([line.strip()], vocabulary)
    for name, values in batch._asdict().items():
        predictor.get_input_handle(name).copy_from_cpu(values.numpy())
    predictor.run()
    scores = predictor.get_output_handle(predictor.get_output_names()[0]).copy_to_cpu()[0]
    share = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
    print(f"{labels[share.argmax()]}\t{share.max():.3f}\t{line.strip()}", flush=True)
