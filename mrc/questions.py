"""From files of questions to groups: texts, and the questions asked of them. The form of a file is detected:

DuReader    One JSON object a line, a question with several documents. Preprocessed lines have the words of everything
            (`segmented_question`, `segmented_paragraphs`), the paragraph of each document that an answer is nearest
            to (`most_related_para`), and the answer's place (`answer_docs`, `answer_spans`: words, both ends inside).
            Raw lines have none of these: they are cut by jieba, and the place is looked for as Baidu did.
SQuAD       One JSON object with `data[].paragraphs[].{context, qas[].{id, question, answers[].{text,
            answer_start}}}` (DRCD, CMRC 2018 as it is mostly passed on).
CMRC 2018   As it was published: a JSON array of `{context_text, qas[].{query_id, query_text, answers[]}}`.

A document of several paragraphs is read as one of them: in training the one that holds or is nearest to an answer,
otherwise the one that has most words of the question.
"""

from collections import Counter
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from elmo_chinese.text.reading import InputError, find_files

from mrc.texts import (
    Text,
    best_span,
    cut,
    get,
    limit,
    lines_of,
    most_related,
    nearest,
    parse,
    recall,
    segmented,
    sound,
    strings,
    word_rows,
    words_around,
)

MAX_DOCUMENTS = 5
SEARCHED = 1000  # words of a paragraph among which an answer is looked for, as Baidu did
# The names of CMRC 2018's own form, in SQuAD's.
SQUAD_NAMES = {"context_text": "context", "query_id": "id", "query_text": "question"}


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
    reader = _Reader(limits, to_train_on, on_bad_line)
    groups, problems, counts = reader.found
    for path in find_files(paths):
        before, known = len(groups), len(problems)
        groups.extend(reader.groups(path))
        if len(groups) == before:
            first = f"; the first problem: {problems[known]}" if problems[known:] else ""
            counted = "".join(f"; {number} {what}" for what, number in (+counts).items())
            raise InputError(f"{path}: no usable question in it{first}{counted}")
    return reader.found


def asked(question: str, texts: Sequence[str], limits: Limits = DEFAULT_LIMITS) -> Found:
    """Return a question asked of texts, as what was read; those without a word are left out.

    Raises:
        InputError: there is no word in the question, or in any text.
    """
    reader = _Reader(limits)
    try:
        text = reader.question_text(cut(sound(question)))
        cuts = [cut(sound(one)) for one in texts]
    except ValueError as error:
        raise InputError(str(error))
    documents = [(number, one) for number, one in enumerate(cuts) if one.words]
    if not documents:
        raise InputError("there is no text that could answer the question")
    reader.found.groups.append(reader.group(documents, Question("", text, None, [])))
    return reader.found


def remarks(found: Found) -> List[str]:
    """Return what is to be said of what was read: what was skipped, and what there is of what is counted."""
    skipped = [f"{len(found.problems)} entries skipped, the first: {found.problems[0]}"] if found.problems else []
    return skipped + [f"{number} {what}" for what, number in (+found.counts).items()]


class _Reader:
    """Reads files one after the other, see `read`; what is worth a remark and which ids were there is of all of them.

    What is wrong with a record is a `ValueError` until `bad` is told of it with its place.
    """

    def __init__(self, limits: Limits, to_train_on: bool = False, on_bad_line: str = "error"):
        self.limits, self.to_train_on, self.on_bad_line = limits, to_train_on, on_bad_line
        self.found = Found([], [], Counter())
        self.counts = self.found.counts
        self.seen: Dict[str, None] = {}

    def groups(self, path: Path) -> Iterator[Group]:
        """Yield the groups of a file, in either form."""
        first = next((line for line in lines_of(path) if line.strip()), "")
        try:
            record = parse(first)
            of_dureader = isinstance(record, dict) and "data" not in record
        except ValueError:  # the first of many lines of SQuAD's form, or a bad one of DuReader's
            of_dureader = '"documents"' in first or '"question_id"' in first
        return self.dureader(path) if of_dureader else self.squad(path)

    def bad(self, path: Path, where: str, error: ValueError) -> None:
        """Take note of what cannot be used, or stop."""
        # An id may be what cannot be printed.
        problem = f"{path}: {where}: {error}".encode("utf-8", "backslashreplace").decode("utf-8")
        if self.on_bad_line == "error":
            raise InputError(f"{problem} (--on_bad_line skip leaves it out)")
        self.found.problems.append(problem)

    def question_text(self, text: Text) -> Text:
        """Return the words of a question that are read."""
        if not text.words:
            raise ValueError("the question is empty")
        self.counts[CUT_QUESTIONS] += len(text.words) > self.limits.question
        return limit(text, self.limits.question)

    def new_id(self, record: Any, name: str) -> str:
        """Return the id of a question that stands under a name."""
        found = get(record, name, str)
        if found in self.seen:
            raise ValueError(f"there is a question {found!r} already")
        return found

    def group(self, chosen: List[Tuple[int, Text]], question: Question) -> Group:
        """Return a question asked of passages, each with the number of its document."""
        passages = [limit(text, self.limits.passage) for _, text in chosen]
        self.counts[CUT_PASSAGES] += sum(text is not whole for text, (_, whole) in zip(passages, chosen))
        return Group(passages, [question], [number for number, _ in chosen])

    # --- SQuAD's form, and CMRC 2018's own ---

    def squad(self, path: Path) -> Iterator[Group]:
        """Yield the groups of a file: a paragraph and its questions."""
        text = "\n".join(lines_of(path))
        try:
            data = parse(text, object_hook=lambda record: {SQUAD_NAMES.get(key, key): record[key] for key in record})
            of_cmrc = isinstance(data, list) and data and isinstance(data[0], dict) and "context" in data[0]
            articles = [{"paragraphs": data}] if of_cmrc else get(data, "data", list)
        except ValueError as error:
            raise InputError(
                f"{path}: {error}; expected one JSON object with data[].paragraphs[], an array of objects with "
                "context_text, or one of DuReader's objects a line"
            )
        number = 0
        for article, entry in enumerate(articles, start=1):
            try:
                paragraphs = get(entry, "paragraphs", list)
            except ValueError as error:
                self.bad(path, f"article {article}", error)
                continue
            for paragraph in paragraphs:
                number += 1
                try:
                    whole, entries = self.squad_paragraph(paragraph)
                except ValueError as error:
                    self.bad(path, f"paragraph {number}", error)
                    continue
                passage = limit(whole, self.limits.passage)
                self.counts[CUT_PASSAGES] += passage is not whole
                questions = []
                for place, qa in enumerate(entries, start=1):
                    try:
                        questions += self.squad_question(qa, passage)
                    except ValueError as error:
                        name = qa.get("id") if isinstance(qa, dict) else None
                        self.bad(path, f"question {name}" if name else f"paragraph {number}, question {place}", error)
                if questions:
                    yield Group([passage], questions, [0])

    def squad_paragraph(self, paragraph: Any) -> Tuple[Text, list]:
        """Return the text of a paragraph, and what stands there of its questions."""
        passage, entries = cut(get(paragraph, "context", str)), get(paragraph, "qas", list)
        if not passage.words:
            names = ", ".join(str(qa.get("id")) for qa in entries if isinstance(qa, dict))
            raise ValueError(f"an empty context (of {names or 'no question'})")
        return passage, entries

    def squad_question(self, qa: Any, passage: Text) -> List[Question]:
        """Return a question, none if it is to be left out."""
        name = self.new_id(qa, "id")
        text = self.question_text(cut(get(qa, "question", str)))
        answers = [{"text": one} if isinstance(one, str) else one for one in get(qa, "answers", list, [])]
        references = [get(answer, "text", str) for answer in answers]
        gold = None
        if self.to_train_on:
            gold = self.squad_gold(answers, references, passage)
            if gold is None:
                self.counts[LEFT_OUT] += 1
                return []
        self.seen[name] = None
        return [Question(name, text, gold, references)]

    def squad_gold(self, answers: List[Any], references: List[str], passage: Text) -> Optional[Gold]:
        """Return the words around the first answer that stands in a passage; None if not all of them are read."""
        wanted = [reference.strip() for reference in references]
        if not any(wanted):
            raise ValueError("no answer to train on")
        number = next((number for number, text in enumerate(wanted) if text and text in passage.text), None)
        if number is None:
            raise ValueError(f"the answer {next(filter(None, wanted))!r:.60} does not stand in its context")
        answer = wanted[number]
        given = get(answers[number], "answer_start", int, -1)
        expected = given + references[number].index(answer)
        start = nearest(passage.text, answer, expected)
        self.counts[MOVED] += start != expected and "answer_start" in answers[number]
        span = words_around(passage, start, start + len(answer))
        if span is None:
            return None
        self.counts[UNEVEN] += passage.piece(*span) != answer
        self.counts[LONG] += span[1] - span[0] >= self.limits.answer
        return Gold(0, *span)

    # --- DuReader's form ---

    def dureader(self, path: Path) -> Iterator[Group]:
        """Yield the groups of a file: a question and its passages."""
        for number, line in enumerate(lines_of(path), start=1):
            if not line.strip():
                continue
            try:
                group = self.dureader_group(parse(line))
            except ValueError as error:
                self.bad(path, f"line {number}", error)
                continue
            if group:
                self.seen[group.questions[0].id] = None
                yield group

    def dureader_group(self, record: Any) -> Optional[Group]:
        """Return a question and its passages, None if it is to be left out."""
        name = self.new_id(record, "question_id")
        if "segmented_question" in record:
            text = segmented(strings(record, "segmented_question"), get(record, "question", str, ""))
        else:
            text = cut(get(record, "question", str))
        text = self.question_text(text)
        documents = get(record, "documents", list)
        self.counts[MORE_DOCUMENTS] += len(documents) > MAX_DOCUMENTS
        full = []  # number of the document, its paragraphs
        for number, document in enumerate(documents[:MAX_DOCUMENTS]):
            paragraphs = _paragraphs(document)
            if any(paragraph.words for paragraph in paragraphs):
                full.append((number, paragraphs))
        if not full:
            raise ValueError(f"question {name}: {'no' if not documents else 'only empty'} documents")
        references = strings(record, "answers", [])
        if not self.to_train_on:
            chosen = [(number, paragraphs[_best(paragraphs, text.words)]) for number, paragraphs in full]
            return self.group(chosen, Question(name, text, None, references))
        if "answer_spans" in record:
            chosen, gold = _given_gold(record, full, text.words)
        elif "segmented_answers" in record:
            chosen, gold = _found_gold(documents, full, text.words, word_rows(record, "segmented_answers"))
        else:
            chosen, gold = _found_gold(documents, full, text.words, [cut(answer).words for answer in references])
        if gold is None or gold.last >= min(self.limits.passage, len(chosen[gold.passage][1].words)):
            self.counts[LEFT_OUT] += 1
            return None
        self.counts[LONG] += gold.last - gold.first >= self.limits.answer
        return self.group(chosen, Question(name, text, gold, references))


def _paragraphs(document: Any) -> List[Text]:
    """Return the paragraphs of a document with their words; they are cut here unless that was done before."""
    raw = strings(document, "paragraphs", [])
    if "segmented_paragraphs" not in document:
        return [cut(text) for text in strings(document, "paragraphs")]
    rows = word_rows(document, "segmented_paragraphs")
    raw = raw if len(raw) == len(rows) else [None] * len(rows)
    return [segmented(words, text) for words, text in zip(rows, raw)]


def _best(paragraphs: List[Text], wanted: Sequence[str]) -> int:
    """Return the number of the paragraph that has most of some words, never one without any."""
    full = [number for number, paragraph in enumerate(paragraphs) if paragraph.words]
    return full[most_related([paragraphs[number].words for number in full], wanted)]


def _given_gold(record, full, wanted) -> Tuple[List[Tuple[int, Text]], Optional[Gold]]:
    """Return the paragraph of each document that the file names, and the answer's place in one of them."""
    chosen = []
    for number, paragraphs in full:
        named = get(record["documents"][number], "most_related_para", int, -1)
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


def _found_gold(documents, full, wanted, answers) -> Tuple[List[Tuple[int, Text]], Optional[Gold]]:
    """Return the paragraph of each document that is nearest to an answer, and the best span in a selected one.

    As Baidu prepared the data: the answer is looked for in the documents that people selected (all, if none). But of
    paragraphs as near as each other Baidu's files name the last one; here it is the shorter one, as in prediction.
    """
    answers = [words for words in answers if words]
    if not answers:
        return [(number, paragraphs[_best(paragraphs, wanted)]) for number, paragraphs in full], None
    chosen, best = [], (0.0, None)
    selected = [number for number, _ in full if documents[number].get("is_selected")]
    for place, (number, paragraphs) in enumerate(full):
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
