"""CPU time of an encoder in dynamic mode, by paddle.jit.load and by Paddle Inference, in turn, on one thread.

    FLAGS_eager_delete_tensor_gb=-1 OMP_NUM_THREADS=1 BILM_CPP=0 python benchmarks/export.py

Sentences of 20 words, alone and in batches of 32; sizes of the demonstration. Without BILM_CPP=0, dynamic mode has its
inner loops in C++. Printed are milliseconds a call, and the share of dynamic mode's speed.
"""

import argparse
import resource
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import paddle
from paddle import inference
from paddle.static import InputSpec

from bilm import ElmoEncoder

# Vocabulary and sizes of the demonstration (run.sh on a CPU).
SIZES = dict(vocab_size=1000, embed_size=64, hidden_size=256)
SPECS = [InputSpec([None, None], "int64", "word_ids"), InputSpec([None], "int64", "lengths")]


def cpu_time():
    """Return the CPU time of this process so far, in seconds."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def predictor(path):
    """Return a function that runs an exported network by Paddle Inference, without oneDNN."""
    program = path + (".pdmodel" if Path(path + ".pdmodel").exists() else ".json")
    config = inference.Config(program, path + ".pdiparams")
    (getattr(config, "disable_onednn", None) or config.disable_mkldnn)()
    config.set_cpu_math_library_num_threads(1)
    made = inference.create_predictor(config)

    def run(word_ids, lengths):
        made.get_input_handle("word_ids").copy_from_cpu(word_ids)
        made.get_input_handle("lengths").copy_from_cpu(lengths)
        made.run()
        return made.get_output_handle(made.get_output_names()[0]).copy_to_cpu()

    return run


def main():
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--words", type=int, default=20, help="words of a sentence (default: 20)")
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument("--calls", type=int, default=10, help="of each in a round (default: 10)")
    options = parser.parse_args()
    paddle.set_device("cpu")
    encoder = ElmoEncoder(**SIZES)
    encoder.eval()
    with tempfile.TemporaryDirectory() as folder:
        path = folder + "/encoder"
        paddle.jit.save(encoder, path, input_spec=SPECS)
        loaded = paddle.jit.load(path)
        loaded.eval()
        ways = {
            "dynamic mode": lambda *arrays: encoder(*map(paddle.to_tensor, arrays)).numpy(),
            "paddle.jit.load": lambda *arrays: loaded(*map(paddle.to_tensor, arrays)).numpy(),
            "Paddle Inference": predictor(path),
        }
        for batch in (1, 32):
            word_ids = np.random.default_rng(0).integers(0, SIZES["vocab_size"], [batch, options.words])
            arrays = word_ids, np.full(batch, options.words)
            times = {way: [] for way in ways}
            with paddle.no_grad():
                expected = encoder(*map(paddle.to_tensor, arrays)).numpy()
                for way, run in ways.items():
                    assert np.abs(run(*arrays) - expected).max() < 1e-5, way
                for _ in range(options.rounds):
                    for way, run in ways.items():
                        start = cpu_time()
                        for _ in range(options.calls):
                            run(*arrays)
                        times[way].append((cpu_time() - start) / options.calls * 1000)
            for way, found in times.items():
                share = statistics.median(a / b for a, b in zip(times["dynamic mode"], found))
                print(f"{batch:2} sentences  {way:16}  {statistics.median(found):6.1f} ms  {share:.2f}", flush=True)


if __name__ == "__main__":
    main()
