"""A Fluid folder at the sizes of the released model into the tagger: python benchmarks/released_sizes.py

Writes a folder with random numbers as the original would (52,445 words, embed 512, hidden 4096, 2 layers, no
softmax, as in the released archive), loads it with `init_pretraining_params` into a LAC tagger, and prints the
seconds and the peak memory as one JSON line. Needs 0.5 GB in the temporary folder.
"""

import json
import resource
import struct
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from elmo_chinese.storage.pretrained import pretrained_info  # noqa: E402

import numpy as np  # noqa: E402
import paddle  # noqa: E402

from bilm import ElmoEncoder, init_pretraining_params  # noqa: E402
from lac.network import Tagger  # noqa: E402

VOCAB, EMBED, HIDDEN, LAYERS = 52445, 512, 4096, 2


def varint(value: int) -> bytes:
    """Return a protobuf varint."""
    parts = bytearray()
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes(parts) + bytes([value])


def write_variable(path: Path, shape, rng) -> None:
    """Write one Fluid variable file of random float32."""
    description = b"\x08\x05" + b"".join(b"\x10" + varint(size) for size in shape)
    head = struct.pack("<IQIi", 0, 0, 0, len(description))
    path.write_bytes(head + description + rng.standard_normal(shape, dtype=np.float32).tobytes())


def main() -> None:
    """Write, load, report."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shapes = {"embedding_para": (VOCAB, EMBED)}
        for index in range(2 * LAYERS):
            direction = "fw" if index < LAYERS else "bw"
            shapes[f"{direction}_layer{index % LAYERS + 1}_gate_w"] = (EMBED, 4 * HIDDEN)
            shapes[f"lstmp_{index}.w_0"] = (EMBED, 4 * HIDDEN)
            shapes[f"lstmp_{index}.w_1"] = (HIDDEN, EMBED)
            shapes[f"lstmp_{index}.b_0"] = (1, 4 * HIDDEN)
        for variable, shape in shapes.items():
            write_variable(folder / variable, shape, rng)
        size = sum(path.stat().st_size for path in folder.iterdir())
        start = time.perf_counter()
        sizes = pretrained_info(folder).sizes
        tagger = Tagger(num_words=30000, num_tags=57, encoder=ElmoEncoder(**sizes))
        made = time.perf_counter()
        init_pretraining_params(None, folder, tagger)
        loaded = time.perf_counter()
    tagger.eval()
    words = paddle.randint(0, VOCAB, [1, 20])
    assert tagger(words % 30000, paddle.to_tensor([20]), words).shape == [1, 20, 57]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    figures = dict(folder_mb=round(size / 2**20), make_s=round(made - start, 2), load_s=round(loaded - made, 2))
    print(json.dumps({**figures, "peak_rss_mb": round(peak)}))


if __name__ == "__main__":
    main()
