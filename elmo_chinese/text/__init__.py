"""Finding and reading text: encodings, vocabularies, words."""
