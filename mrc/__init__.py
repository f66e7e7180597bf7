"""Reading comprehension: a question and some text in, the piece of the text that answers it out."""
