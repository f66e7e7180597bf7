"""The extras of the package, with the versions that the requirements files pin. All else is in pyproject.toml."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class WithTypes(build_py):
    """Also installs bilm.py as stubs: a single module cannot say that type checkers may read it (PEP 561)."""

    def run(self):
        super().run()
        if not self.editable_mode:
            folder = Path(self.build_lib, "bilm-stubs")
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "__init__.pyi").write_bytes(Path("bilm.py").read_bytes())


def pinned(path, without=()):
    """Return the requirements of a file, but for those of some packages."""
    lines = (line.split("#")[0].strip() for line in Path(path).read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not line.startswith(tuple(without))]


def only(path, name):
    """Return the requirement of one package."""
    return [line for line in pinned(path) if line.startswith(name)]


setup(
    cmdclass={"build_py": WithTypes},
    extras_require={
        "cpu": pinned("requirements-cpu.txt", without=["visualdl", "jieba"]),
        "gpu": pinned("requirements.txt", without=["visualdl", "jieba"]),
        "visualdl": only("requirements.txt", "visualdl"),
        "wikipedia": only("requirements-dev.txt", "mwparserfromhell") + only("requirements-dev.txt", "opencc"),
        "cluster": only("requirements-dev.txt", "distributed"),
        "h5": only("requirements-dev.txt", "h5py"),
    },
)
