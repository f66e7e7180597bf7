"""From files of questions to groups: texts, and the questions asked of them.

Two forms, told apart by looking at the file:

DuReader    One JSON object a line, a question with several documents. Preprocessed lines have the words of everything
            (`segmented_question`, `segmented_paragraphs`), the paragraph of each document that an answer is nearest
            to (`most_related_para`), and the answer's place (`answer_docs`, `answer_spans`: words, both ends inside).
            Raw lines have none of these: they are cut by jieba, and the place is looked for as Baidu did.
SQuAD       One JSON object with `data[].paragraphs[].{context, qas[].{id, question, answers[].{text,
            answer_start}}}` (CMRC 2018, DRCD).

A document of several paragraphs is read as one of them: in training the one that holds or is nearest to an answer,
otherwise the one that has most words of the question.
"""

from collections import Counter
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from elmo_chinese.text.reading import InputError, find_files

from mrc.records import get, lines_of, parse, sound, strings, word_rows
from mrc.words import Text, best_span, cut, limit, most_related, nearest, recall, segmented, words_around

MAX_DOCUMENTS = 5
SEARCHED = 1000  # words of a paragraph among which an answer is looked for, as Baidu did


class Gold(NamedTuple):
    """Where the answer is: the number of the passage, and its first and last word."""

    passage: int
    first: int
    last: int


class Question(NamedTuple):
    """A question; `gold` is None where it is not needed or not known, `references` may be none."""

    id: str
    text: Text
    gold: Optional[Gold]
    references: List[str]


class Group(NamedTuple):
    """Passages, and the questions asked of all of them together.

    `documents` are the numbers of the passages among those of the file.
    """

    passages: List[Text]
    questions: List[Question]
    documents: List[int]


class Limits(NamedTuple):
    """The most words of a passage, of a question, and of an answer."""

    passage: int = 500
    question: int = 60
    answer: int = 200


class Found(NamedTuple):
    """What was read.

    Attributes:
        groups: those with a question that can be used.
        problems: what is wrong with the questions and lines skipped, each with its place.
        counts: of what is worth a remark, by what to say.
    """

    groups: List[Group]
    problems: List[str]
    counts: Counter


# What is counted.
CUT_PASSAGES = "passages cut at --max_passage_len of mrc.train: the rest of them is not read"
CUT_QUESTIONS = "questions cut at --max_question_len of mrc.train: the rest of them is not read"
LEFT_OUT = "questions left out: no answer among the words that are read"
MOVED = "answers that do not stand where answer_start says, found by their text"
UNEVEN = "answers that do not end where words do: trained on the fewest words around them"
LONG = "answers longer than --max_answer_len: never given in full"
MORE_DOCUMENTS = f"questions with more than {MAX_DOCUMENTS} documents: the rest is not read"


DEFAULT_LIMITS = Limits()


def read(
    paths: Sequence[str], limits: Limits = DEFAULT_LIMITS, to_train_on: bool = False, on_bad_line: str = "error"
) -> Found:
    """Read files of questions.

    Args:
        paths: see `find_files`.
        to_train_on: find where the answers are; questions of which that is not known are left out.
        on_bad_line: "error", or "skip" to leave out what cannot be used.

    Raises:
        InputError: naming file, line or question, and what is wrong. Or nothing in a file can be used.
    """
    found = Found([], [], Counter())
    seen: Dict[str, None] = {}
    for path in find_files(paths):
        before, known = len(found.groups), len(found.problems)

        def bad(where: str, error: ValueError, path=path) -> None:
            # An id may be what cannot be printed.
            problem = f"{path}: {where}: {error}".encode("utf-8", "backslashreplace").decode("utf-8")
            if on_bad_line == "error":
                raise InputError(f"{problem} (--on_bad_line skip leaves it out)")
            found.problems.append(problem)

        how = (limits, to_train_on, found.counts, seen, bad)
        found.groups.extend(_dureader(path, *how) if _is_dureader(path) else _squad(path, *how))
        if len(found.groups) == before:
            first = f"; the first problem: {found.problems[known]}" if found.problems[known:] else ""
            counted = "".join(f"; {number} {what}" for what, number in (+found.counts).items())
            raise InputError(f"{path}: no usable question in it{first}{counted}")
    return found


def asked(question: str, texts: Sequence[str], limits: Limits = DEFAULT_LIMITS) -> Found:
    """Return a question asked of texts, as what was read; those without a word are left out.

    Raises:
        InputError: there is no word in the question, or in any text.
    """
    counts: Counter = Counter()
    try:
        text = _question_text(cut(sound(question)), limits, counts)
        cuts = [cut(sound(one)) for one in texts]
    except ValueError as error:
        raise InputError(str(error))
    there = [(number, one) for number, one in enumerate(cuts) if one.words]
    if not there:
        raise InputError("there is no text that could answer the question")
    return Found([_group(there, Question("", text, None, []), limits, counts)], [], counts)


def remarks(found: Found) -> List[str]:
    """Return what is to be said of what was read: what was skipped, and what there is of what is counted."""
    skipped = [f"{len(found.problems)} entries skipped, the first: {found.problems[0]}"] if found.problems else []
    return skipped + [f"{number} {what}" for what, number in (+found.counts).items()]


def _is_dureader(path: Path) -> bool:
    """Say whether the first line is an object that is not the whole of SQuAD's form."""
    first = next((line for line in lines_of(path) if line.strip()), "")
    try:
        record = parse(first)
    except ValueError:
        return '"documents"' in first or '"question_id"' in first
    return isinstance(record, dict) and "data" not in record


def _question_text(text: Text, limits: Limits, counts: Counter) -> Text:
    if not text.words:
        raise ValueError("the question is empty")
    counts[CUT_QUESTIONS] += len(text.words) > limits.question
    return limit(text, limits.question)


def _new_id(record: Any, name: str, seen: Dict[str, None]) -> str:
    found = get(record, name, str)
    if found in seen:
        raise ValueError(f"there is a question {found!r} already")
    return found


# --- SQuAD's form ---


def _squad(path, limits, to_train_on, counts, seen, bad) -> Iterator[Group]:
    """Yield the groups of a file: a paragraph and its questions."""
    text = "\n".join(lines_of(path))
    try:
        data = get(parse(text), "data", list)
    except ValueError as error:
        raise InputError(f"{path}: {error}; expected one JSON object with data[].paragraphs[], or one of DuReader's "
                         "a line")  # fmt: skip
    number = 0
    for article, entry in enumerate(data, start=1):
        try:
            paragraphs = get(entry, "paragraphs", list)
        except ValueError as error:
            bad(f"article {article}", error)
            continue
        for paragraph in paragraphs:
            number += 1
            try:
                passage = cut(get(paragraph, "context", str))
                entries = get(paragraph, "qas", list)
                if not passage.words:
                    names = ", ".join(str(qa.get("id")) for qa in entries if isinstance(qa, dict))
                    raise ValueError(f"an empty context (of {names or 'no question'})")
            except ValueError as error:
                bad(f"paragraph {number}", error)
                continue
            whole, passage = passage, limit(passage, limits.passage)
            counts[CUT_PASSAGES] += passage is not whole
            questions = []
            for place, qa in enumerate(entries, start=1):
                try:
                    question = _squad_question(qa, passage, limits, to_train_on, counts, seen)
                except ValueError as error:
                    name = qa.get("id") if isinstance(qa, dict) else None
                    bad(f"question {name}" if name else f"paragraph {number}, question {place}", error)
                    continue
                if question:
                    seen[question.id] = None
                    questions.append(question)
            if questions:
                yield Group([passage], questions, [0])


def _squad_question(qa, passage: Text, limits, to_train_on, counts, seen) -> Optional[Question]:
    """Return a question, None if it is to be left out."""
    name = _new_id(qa, "id", seen)
    text = _question_text(cut(get(qa, "question", str)), limits, counts)
    answers = get(qa, "answers", list, [])
    references = [get(answer, "text", str) for answer in answers]
    if not to_train_on:
        return Question(name, text, None, references)
    wanted = [reference.strip() for reference in references]
    if not any(wanted):
        raise ValueError("no answer to train on")
    number = next((number for number, text in enumerate(wanted) if text and text in passage.text), None)
    if number is None:
        raise ValueError(f"the answer {next(filter(None, wanted))!r:.60} does not stand in its context")
    answer = wanted[number]
    given = get(answers[number], "answer_start", int, -1) + references[number].index(answer)
    start = nearest(passage.text, answer, given)
    counts[MOVED] += start != given
    span = words_around(passage, start, start + len(answer))
    if span is None:
        counts[LEFT_OUT] += 1
        return None
    counts[UNEVEN] += passage.piece(*span) != answer
    counts[LONG] += span[1] - span[0] >= limits.answer
    return Question(name, text, Gold(0, *span), references)


# --- DuReader's form ---


def _dureader(path, limits, to_train_on, counts, seen, bad) -> Iterator[Group]:
    """Yield the groups of a file: a question and its passages."""
    for number, line in enumerate(lines_of(path), start=1):
        if not line.strip():
            continue
        try:
            group = _dureader_group(parse(line), limits, to_train_on, counts, seen)
        except ValueError as error:
            bad(f"line {number}", error)
            continue
        if group:
            seen[group.questions[0].id] = None
            yield group


def _paragraphs(document: Any) -> List[Text]:
    """Return the paragraphs of a document with their words; they are cut here unless that was done before."""
    raw = strings(document, "paragraphs") if get(document, "paragraphs", list, []) else []
    if "segmented_paragraphs" not in document:
        return [cut(text) for text in strings(document, "paragraphs")]
    rows = word_rows(document, "segmented_paragraphs")
    raw = raw if len(raw) == len(rows) else [None] * len(rows)
    return [segmented(words, text) for words, text in zip(rows, raw)]


def _answer_words(record: Any, references: List[str]) -> List[List[str]]:
    if "segmented_answers" in record:
        return word_rows(record, "segmented_answers")
    return [cut(text).words for text in references]


def _dureader_group(record, limits, to_train_on, counts, seen) -> Optional[Group]:
    """Return a question and its passages, None if it is to be left out."""
    name = _new_id(record, "question_id", seen)
    if "segmented_question" in record:
        text = segmented(strings(record, "segmented_question"), get(record, "question", str, ""))
    else:
        text = cut(get(record, "question", str))
    text = _question_text(text, limits, counts)
    documents = get(record, "documents", list)
    counts[MORE_DOCUMENTS] += len(documents) > MAX_DOCUMENTS
    there = []  # number of the document, its paragraphs
    for number, document in enumerate(documents[:MAX_DOCUMENTS]):
        paragraphs = _paragraphs(document)
        if any(paragraph.words for paragraph in paragraphs):
            there.append((number, paragraphs))
    if not there:
        raise ValueError(f"question {name}: {'no' if not documents else 'only empty'} documents")
    references = strings(record, "answers") if "answers" in record else []
    if not to_train_on:
        chosen = [(number, paragraphs[_best(paragraphs, text.words)]) for number, paragraphs in there]
        return _group(chosen, Question(name, text, None, references), limits, counts)
    if "answer_spans" in record:
        chosen, span = _given_span(record, there, text.words)
    else:
        chosen, span = _found_span(documents, there, text.words, _answer_words(record, references))
    if span is None or span.last >= min(limits.passage, len(chosen[span.passage][1].words)):
        counts[LEFT_OUT] += 1
        return None
    counts[LONG] += span.last - span.first >= limits.answer
    return _group(chosen, Question(name, text, span, references), limits, counts)


def _group(chosen: List[Tuple[int, Text]], question: Question, limits: Limits, counts: Counter) -> Group:
    passages = [limit(text, limits.passage) for _, text in chosen]
    counts[CUT_PASSAGES] += sum(text is not whole for text, (_, whole) in zip(passages, chosen))
    return Group(passages, [question], [number for number, _ in chosen])


def _best(paragraphs: List[Text], wanted: Sequence[str]) -> int:
    """Return the number of the paragraph that has most of some words, never one without any."""
    full = [number for number, paragraph in enumerate(paragraphs) if paragraph.words]
    return full[most_related([paragraphs[number].words for number in full], wanted)]


def _given_span(record, there, wanted) -> Tuple[List[Tuple[int, Text]], Optional[Gold]]:
    """Return the paragraph of each document that the file names, and the answer's place in one of them."""
    documents, chosen = record["documents"], []
    for number, paragraphs in there:
        named = get(documents[number], "most_related_para", int, -1)
        if not 0 <= named < len(paragraphs) or not paragraphs[named].words:
            named = _best(paragraphs, wanted)
        chosen.append((number, paragraphs[named]))
    spans, holders = get(record, "answer_spans", list), get(record, "answer_docs", list, [])
    places = {number: place for place, (number, _) in enumerate(chosen)}
    if not spans or not holders:
        return chosen, None
    if type(holders[0]) is not int:
        raise ValueError(f"'answer_docs' is {holders!r:.60}; expected the number of a document")
    span = spans[0]
    if not (isinstance(span, list) and [type(end) for end in span] == [int, int] and 0 <= span[0] <= span[1]):
        raise ValueError(f"'answer_spans' is {spans!r:.60}; expected [[first word, last word]]")
    return chosen, Gold(places[holders[0]], *span) if holders[0] in places else None


def _found_span(documents, there, wanted, answers) -> Tuple[List[Tuple[int, Text]], Optional[Gold]]:
    """Return the paragraph of each document that is nearest to an answer, and the best span in a selected one.

    As Baidu prepared the data: the answer is looked for in the documents that people selected (all, if none). But of
    paragraphs as near as each other Baidu's files name the last one; here it is the shorter one, as in prediction.
    """
    answers = [words for words in answers if words]
    if not answers:
        return [(number, paragraphs[_best(paragraphs, wanted)]) for number, paragraphs in there], None
    chosen, best = [], (0.0, None)
    selected = [number for number, _ in there if documents[number].get("is_selected")]
    for place, (number, paragraphs) in enumerate(there):
        text = max(
            (text for text in paragraphs if text.words),
            key=lambda text: (max(recall(text.words, words) for words in answers), -len(text.words)),
        )
        chosen.append((number, text))
        if not selected or number in selected:
            for words in answers:
                f1, first, last = best_span(text.words[:SEARCHED], words)
                if f1 > best[0]:
                    best = (f1, Gold(place, first, last))
    return chosen, best[1]
