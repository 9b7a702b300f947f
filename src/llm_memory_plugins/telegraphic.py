# ruff: noqa: RUF001 -- the quotation marks, dashes and full stops of other scripts are meant
"""Says a sentence in fewer characters, the way a note does: "lost job as banker yesterday, starting own business".

Function words that a reader supplies without thinking go (articles, forms of "be", the speaker's own "I"), and so do
greetings, interjections, hedges, intensifiers and the name of who is spoken to. What carries the statement stays:
negations, prepositions, modal verbs, other people's pronouns, and every protected span, character for character.

This is sentence compression by word deletion (Knight & Marcu 2002, "Summarization beyond sentence extraction: a
probabilistic approach to sentence compression"); here what may be deleted is a closed list instead of a learned model.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from llm_memory_plugins.text import clauses, content_words, sentences, word_set, words

__all__ = ["Clause", "excerpt", "join", "parse", "plain", "protect", "restore"]

# A protected span keeps its inner spaces as _GLUE while the text is taken apart, and ends in _MARK. Both are private
# use characters: no text means anything by them, and neither counts as a letter or as white space.
_GLUE, _MARK = "\ue000", "\ue001"

_DROPPED = word_set(
    """a an the i i'm i've my myself it it's its itself am is are was were that that's there's here's it'd
    just really very so too quite pretty actually basically literally definitely totally absolutely truly super simply
    honestly certainly seriously obviously especially particularly extremely incredibly somehow anyway anyways also
    even such lol haha hahaha hehe btw tbh imo um uh er hmm ah oh ooh aw aww wow whoa woah yay yeah yep yup yes ya ok
    okay well hey hi hello hiya yo oops ouch gosh omg please thanks thank thx cheers indeed kinda sorta gotta"""
)
_HEDGES = frozenset(
    tuple(line.split())
    for line in """
        i think
        i guess
        i mean
        i suppose
        i feel like
        i must say
        i have to say
        i gotta say
        a bit
        a little bit
        for sure
        to be honest
        by the way
        of course
        as well
        no doubt
        oh my god
        thank you
        thank you so much
        thanks for
        thanks so much
        thanks a lot
        in fact
        at the end of the day
    """.strip().splitlines()
)
_LONGEST_HEDGE = max(map(len, _HEDGES))
_CALLS = word_set("hey hi hello yo thanks thank wow oh yeah yes ok okay sorry congrats congratulations")
_SUBJECTS = word_set("i you he she it we they this that these those")
_PARTICIPLES = word_set(
    """been got gotten done made seen gone taken given had found thought told come become begun bought brought built
    caught felt heard held kept known learnt led left lost met paid put read run said sent set shown slept spent"""
)
_SHORTER = {"i'll": "will", "it'll": "will", "that'll": "will", "i'd": "would", "he's": "he", "she's": "she"} | {
    pronoun + verb: pronoun for pronoun in ("we", "you", "they") for verb in ("'re", "'ve")
}
_EDGE = '.,;:!?…*_`"“”()'
_LEADING = word_set("and so plus then but or yet")
_ASKING = word_set(
    """what what's how how's who who's whom whose when where where's why which can could do does did don't didn't is
    isn't are aren't was were will would won't wouldn't should shall may have has had haven't hasn't any
    anything"""
)
_DECORATED = re.compile(r"^[ \t]*#{1,6}[ \t][^\n]*|\*\*[^*\n]{1,200}\*\*", re.MULTILINE)
_CAPITAL = re.compile(r"(?<![^\s*])[A-Z][a-z]+(?![^\s*.,:;!?)])")
_MARKUP = re.compile(r"^[ \t]*(?:(?:#{1,6}|[-*+•]|\d{1,3}[.)])[ \t]+)+|\*\*", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Clause:
    """A piece of a sentence, made short.

    Attributes:
        text: The short form; may be empty when nothing was worth saying.
        source: The clause as it was written.
        content: The content words (stems) of `source`.
        kept: The content words that `text` still holds.
        protected: How many protected spans it holds.
        sentence: Which sentence of the text it belongs to, from 0.
        question: Whether that sentence asks something.
        stop: What joined it to the clause before: a comma, or nothing.
    """

    text: str
    source: str
    content: frozenset[str]
    kept: frozenset[str]
    protected: int
    sentence: int
    question: bool
    stop: str


def protect(text: str, spans: Iterable[tuple[int, int]]) -> str:
    """Marks spans of `text`, in order and without overlap, so that `parse` leaves them whole."""
    parts: list[str] = []
    done = 0
    for start, end in spans:
        parts += (text[done:start], _GLUE.join(text[start:end].split()), _MARK)
        done = end
    parts.append(text[done:])
    return "".join(parts)


def restore(text: str) -> str:
    """Takes the marks of `protect` off again."""
    return text.replace(_MARK, "").replace(_GLUE, " ")


def plain(text: str) -> str:
    """Takes Markdown off a text; headings and bold words lose the capitals that only decorate them."""
    text = _DECORATED.sub(lambda found: _CAPITAL.sub(lambda word: word[0].lower(), found[0]), text)
    return _MARKUP.sub("", text)


def parse(text: str, called: Collection[str] = ()) -> list[Clause]:
    """The clauses of `text` in order, each with its short form.

    Args:
        text: A text without its speaker, protected or not.
        called: Names in lower case of those who take part: dropped where they are only being called ("Hi Ann,").
    """
    found: list[Clause] = []
    for number, sentence in enumerate(sentences(plain(text))):
        pieces = clauses(sentence)
        asks = _first_question(pieces) if sentence.rstrip("\"'”’)*_").endswith(("?", "？")) else len(pieces)
        stop = ""
        for index, piece in enumerate(pieces):
            begins = index == 0 or pieces[index - 1][-1] == ":"
            short = restore(" ".join(_shorten(piece.split(), called, begins=begins)).rstrip(",;: –—-"))
            source = restore(piece)
            content, kept = frozenset(content_words(source)), frozenset(content_words(short))
            found.append(Clause(short, source, content, kept, piece.count(_MARK), number, index >= asks, stop))
            stop = "," if piece[-1] in ",;:—–-" else ""
    return found


def _first_question(pieces: Sequence[str]) -> int:
    """Which clause of a sentence with a question mark begins to ask: "my car broke down, can you help?"."""
    for index, piece in enumerate(pieces):
        opening = [word for word in words(piece)[:3] if word not in _LEADING]
        if opening and opening[0] in _ASKING:
            return index
    return 0


def join(parts: Iterable[Clause]) -> str:
    """One line of the short forms: commas inside a sentence, semicolons between sentences, "?" behind a question."""
    line = ""
    before: Clause | None = None
    for part in parts:
        text, same = part.text, before is not None and before.sentence == part.sentence
        opening, _, rest = text.partition(" ")
        if not same and opening.lower() in _LEADING:
            text = rest
        if not text:
            continue
        if before is not None:
            line += ("?" if before.question and not same else "") + (part.stop if same else ";") + " "
        line += text
        before = part
    return line + ("?" if before is not None and before.question else "")


def _shorten(parts: list[str], called: Collection[str], *, begins: bool) -> Iterator[str]:
    """The words of a clause that stay."""
    cores = [part.strip(_EDGE).lower().replace("\u2019", "'") for part in parts]
    index = 0
    while index < len(parts):
        skip = _hedge(cores, index)
        if skip:
            index += skip
            continue
        part, core = parts[index], cores[index]
        ends = index == len(parts) - 1
        index += 1
        if _MARK in part:
            if not _calls(parts, cores, index - 1, called):
                yield _trim(part, ends=ends)
            continue
        if not core or _is_droppable(cores, index - 1):
            continue
        if _calls(parts, cores, index - 1, called):
            continue
        if core in _SHORTER:
            part = _SHORTER[core]
        elif part[1:].islower() and (begins if index == 1 else parts[index - 2][-1] == ":"):
            part = part[0].lower() + part[1:]
        yield _trim(part, ends=ends)


def _hedge(cores: list[str], index: int) -> int:
    for size in range(min(_LONGEST_HEDGE, len(cores) - index), 1, -1):
        if tuple(cores[index : index + size]) in _HEDGES:
            return size
    return 0


def _is_droppable(cores: list[str], index: int) -> bool:
    """Whether the word at `index` is of the closed list, or a verb that only helps another one."""
    core = cores[index]
    if core in _DROPPED:
        # "it" may go as a subject; at the end it is what was done something to.
        return core != "it" or index < len(cores) - 1
    following = cores[index + 1] if index + 1 < len(cores) else ""
    if core in ("do", "does", "did"):
        return following in _SUBJECTS
    if core in ("have", "has", "had", "been"):
        return following in _PARTICIPLES or following in _SUBJECTS or following.endswith(("ed", "ing"))
    return False


def _calls(parts: list[str], cores: list[str], index: int, called: Collection[str]) -> bool:
    """Whether the word at `index` only calls somebody by name, set apart as in "Hi Ann," or "great, Ann!"."""
    part = parts[index]
    if not part[0].isupper() or restore(cores[index]) not in called:
        return False
    after = index == len(parts) - 1 or part[-1] in ",!?."
    before = index == 0 or parts[index - 1][-1] in ",!?." or cores[index - 1] in _CALLS
    return after and before and len(parts) > 1


def _trim(part: str, *, ends: bool) -> str:
    """Takes markup and, at the end of a clause, punctuation off a word."""
    if _MARK in part:
        body, _, tail = part.rpartition(_MARK)
        return body.lstrip("*_") + _MARK + tail.rstrip("*_" + (".,;:!?…" if ends else ""))
    part = part.strip("*_")
    return part.rstrip(".,;:!?…") if ends else part


def excerpt(text: str, spans: Sequence[tuple[int, int]], around: int = 6) -> str:
    """The short forms of the clauses around some spans of `text`, each cut to a few words on both sides.

    Args:
        text: A text without its speaker.
        spans: Start and end of what must be shown, in order and without overlap.
        around: Words shown on each side of a span.
    """
    shown: list[str] = []
    for sentence in sentences(plain(protect(text, spans))):
        for clause in clauses(sentence):
            if _MARK in clause:
                parts = list(_shorten(clause.split(), (), begins=sentence.startswith(clause)))
                places = [index for index, part in enumerate(parts) if _MARK in part]
                near = {index for place in places for index in range(place - around, place + around + 1)}
                kept = [part for index, part in enumerate(parts) if index in near]
                shown.append(restore(" ".join(kept)).rstrip(",;:"))
    return "; ".join(shown)
