"""A Chinese tagger: word segmentation, part of speech and names in one pass, with or without ELMo vectors."""


def __getattr__(name):
    """Return `LAC`, the interface of LAC 2.1, loading it (and Paddle) when it is asked for."""
    if name == "LAC":
        from lac.release.interface import LAC

        return LAC
    raise AttributeError(f"module 'lac' has no attribute {name!r}")
