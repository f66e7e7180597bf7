"""What may import what: the engine stands alone, and nobody imports a program."""

import ast

import pytest
from conftest import ROOT, files_of_the_parts, project_files

PROGRAMS = {"train", "preprocess", "embed"}
# Each may import those before it, besides its own parts.
LAYERS = [{"elmo_chinese"}, {"bilm", "reader"}, {"lac", "mrc", "elmo_embed", "elmo_publish"}, PROGRAMS]
SOURCES = [
    ROOT / name
    for name in project_files()
    if name.suffix == ".py" and name.parts[0] not in ("tests", "benchmarks", "examples", "setup.py")
]


def top_level_imports(path):
    """Return the top-level names that a file imports, also within its functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative imports hide who imports whom"
            names.add(node.module.split(".")[0])
    return names


def test_the_project_is_known_without_git():
    assert set(project_files()) <= set(files_of_the_parts())


def test_every_source_has_its_place():
    assert {path.relative_to(ROOT).parts[0].replace(".py", "") for path in SOURCES} == set.union(*LAYERS)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_downwards(path):
    own = path.relative_to(ROOT).parts[0].replace(".py", "")
    below = set()
    for layer in LAYERS:
        if own in layer:
            break
        below |= layer
    allowed = below | {own}
    assert top_level_imports(path) & set.union(*LAYERS) <= allowed


def test_no_two_parts_of_the_engine_import_each_other():
    needs = {}
    for path in SOURCES:
        if path.relative_to(ROOT).parts[0] == "elmo_chinese":
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            needs[name] = set()
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom):
                    needs[name] |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    del needs["elmo_chinese.__init__"]
    while needs:  # take away, again and again, what needs nothing that is left
        free = [name for name, wanted in needs.items() if not wanted & set(needs)]
        assert free, f"in a circle: {sorted(needs)}"
        for name in free:
            del needs[name]


# The folders of the engine, from the ground up. A file may import what lies below its folder, and its own folder.
FLOORS = ["network", "text", "storage", "training"]


@pytest.mark.parametrize("path", [path for path in SOURCES if "elmo_chinese" in path.parts], ids=lambda path: path.name)
def test_the_folders_of_the_engine_stand_on_those_below(path):
    parts = path.relative_to(ROOT).parts
    own = FLOORS.index(parts[1]) if parts[1] in FLOORS else -1
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("elmo_chinese."):
            wanted = node.module.split(".")[1]
            assert wanted not in FLOORS or FLOORS.index(wanted) <= own, f"{path}:{node.lineno}"
