"""The parts of preprocess.py: reading documents, cutting sentences and words, shards, workers, the summary."""
