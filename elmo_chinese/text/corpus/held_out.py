"""Which part of a corpus goes to dev: whole documents, or of few documents blocks of lines."""

import hashlib
from typing import Iterable, Iterator, List, Tuple

FEW = 10  # where dev would get fewer documents, it is drawn in blocks of the longer ones
BLOCK = 1000  # characters


def held_out(
    pieces: Iterable[Tuple[bool, List[str]]], dev_fraction: float, longest: float
) -> Iterator[Tuple[bool, bool, List[str]]]:
    """Yield what `documents` yields, each with whether it goes to dev: `(starts here, is held out, lines)`.

    A document goes to dev or to train as a whole, by a hash of its text (of its first piece, if it comes in several).
    One of more than `longest` characters does so in blocks of consecutive lines of that length: of 1 / dev_fraction
    blocks one goes to dev, the hash says which.
    """
    drawn = share = size = 0
    for starts, piece in pieces:
        if starts:
            digest = hashlib.sha256("\n".join(piece).encode("utf-8")).digest()
            drawn, share, size = int.from_bytes(digest[:8], "big"), int(dev_fraction * 2**64), 0
        block: List[str] = []
        for line in piece:
            if size >= longest:
                if block:
                    yield starts, drawn < share, block
                starts, block, size, drawn = False, [], 0, (drawn - share) % 2**64
            block.append(line)
            size += len(line)
        yield starts, drawn < share, block


def longest_whole(documents: int, dev_fraction: float) -> float:
    """Return how long a document of a corpus may be that goes to dev or to train as a whole, in characters."""
    return BLOCK if documents * dev_fraction < FEW else float("inf")


def nothing_to_train_on(documents: int, held_out_sentences: int, output: str) -> str:
    """Return what to say of a corpus without a sentence for training."""
    if not held_out_sentences:
        return f"no sentence in the {documents:,} documents of --input"
    return (
        f"all {held_out_sentences:,} sentences of the {documents:,} documents fell to dev, none is left for training; "
        f"delete {output} and lower --dev_fraction, or bring more text"
    )
