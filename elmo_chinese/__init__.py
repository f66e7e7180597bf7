"""The engine that `bilm`, the programs and the tagger stand on: layers, losses, files, text, runs.

It imports nothing of what stands on it. Importing any part of it makes the settings of `runtime.py`.
"""

from elmo_chinese import runtime  # noqa: F401

__version__ = "2.0.0"
