"""A Chinese tagger: word segmentation, part of speech and names in one pass, with or without ELMo vectors."""
