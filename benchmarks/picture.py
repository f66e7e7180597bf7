"""Draw docs/overview.svg: how a sentence becomes ELMo vectors, and where a task takes them in.

python benchmarks/picture.py
"""

from pathlib import Path

TARGET = Path(__file__).resolve().parents[1] / "docs" / "overview.svg"
WORDS = ["上海", "市长", "会见", "客人"]
BLUE, GREEN, RED, GREY = "#2952cc", "#0a7f5a", "#b4472e", "#555"
LEFT, STEP, WIDTH, HEIGHT = 250, 120, 96, 34
ROWS = {"mix": 42, "layer 2": 112, "layer 1": 182, "embedding": 252, "words": 308}


def box(x, y, text, colour, width=WIDTH):
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{HEIGHT}" rx="6" fill="white" stroke="{colour}" '
        f'stroke-width="1.6"/><text x="{x + width / 2}" y="{y + 22}" fill="{colour}">{text}</text>'
    )


def arrow(x1, y1, x2, y2, colour=GREY):
    return f'<path d="M{x1} {y1}L{x2} {y2}" stroke="{colour}" stroke-width="1.4" marker-end="url(#{colour[1:]})"/>'


def label(y, title, note):
    return (
        f'<text x="20" y="{y + 16}" text-anchor="start" font-weight="bold" fill="#222">{title}</text>'
        f'<text x="20" y="{y + 32}" text-anchor="start" font-size="11.5" fill="{GREY}">{note}</text>'
    )


def heads():
    """Return the heads of arrows, one for each colour."""
    return "".join(
        f'<marker id="{colour[1:]}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0 0L8 4L0 8z" fill="{colour}"/></marker>'
        for colour in (BLUE, GREEN, RED, GREY)
    )


def columns():
    """Yield what stands above each word: its embedding, both directions of each layer, the mix."""
    for index, word in enumerate(WORDS):
        x = LEFT + index * STEP
        middle = x + WIDTH / 2
        yield f'<text x="{middle}" y="{ROWS["words"] + 18}" font-size="17" fill="#222">{word}</text>'
        yield box(x, ROWS["embedding"], "embedding", GREY)
        yield arrow(middle, ROWS["words"], middle, ROWS["embedding"] + HEIGHT + 2)
        for row, below in (("layer 1", "embedding"), ("layer 2", "layer 1")):
            y, half = ROWS[row], WIDTH / 2 - 4
            yield box(x, y, "→", BLUE, half) + box(x + half + 8, y, "←", GREEN, half)
            yield arrow(middle, ROWS[below], middle, y + HEIGHT + 2)
            if index + 1 < len(WORDS):
                yield arrow(x + WIDTH, y + 12, x + STEP - 2, y + 12, BLUE)
                yield arrow(x + STEP, y + 24, x + WIDTH + 2, y + 24, GREEN)
        yield box(x, ROWS["mix"], "ELMo", RED)
        yield arrow(middle, ROWS["layer 2"], middle, ROWS["mix"] + HEIGHT + 2)


def task():
    """Yield the part on the right: what a task makes of the vectors."""
    x, right = LEFT + len(WORDS) * STEP + 40, 250
    yield box(x, ROWS["mix"], "[ ELMo ; word embedding ]", RED, right)
    yield arrow(x - 50, ROWS["mix"] + 17, x - 3, ROWS["mix"] + 17, RED)
    yield box(x, ROWS["layer 2"], "your network (BiGRU, CNN, …)", "#222222", right)
    yield arrow(x + right / 2, ROWS["mix"] + HEIGHT, x + right / 2, ROWS["layer 2"] - 3)
    yield box(x, ROWS["layer 1"], "tags, answers, labels", "#222222", right)
    yield arrow(x + right / 2, ROWS["layer 2"] + HEIGHT, x + right / 2, ROWS["layer 1"] - 3)
    notes = ("trained on your task:", "your network, one weight a layer, γ", "frozen: the biLM below ELMo")
    y = ROWS["embedding"] + 14
    for number, note in enumerate(notes):
        yield f'<text x="{x}" y="{y + 19 * number}" text-anchor="start" fill="{GREY}">{note}</text>'


def main():
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1040 345" font-family="sans-serif" font-size="13" '
        'text-anchor="middle">',
        '<rect width="1040" height="345" fill="white"/>',
        f"<defs>{heads()}</defs>",
        label(ROWS["mix"], "vectors", "γ · Σ softmax(w) · layer"),
        label(ROWS["layer 2"], "biLM, layer 2", "LSTM with projection,"),
        label(ROWS["layer 1"], "biLM, layer 1", "one in each direction"),
        label(ROWS["embedding"], "embedding", "of each word"),
        label(ROWS["words"] - 8, "text", "cut into words"),
        *columns(),
        *task(),
        "</svg>",
    ]
    TARGET.write_text("\n".join(parts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
