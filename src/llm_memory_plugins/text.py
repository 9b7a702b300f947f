# ruff: noqa: RUF001 -- the quotation marks, dashes and full stops of other scripts are meant
"""Words, sentences and clauses of any text: the small, pure ground the summariser and the anchor ledger stand on.

Everything here is linear in the length of the text, never raises on any text, and touches neither disk nor network.
English is served best; other scripts are split sensibly (sentences at their own full stops, words as character pairs
where a script writes no spaces) and never dropped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from threading import local
from typing import cast

import snowballstemmer  # pyright: ignore[reportMissingTypeStubs]

__all__ = [
    "STOP_WORDS",
    "UNSPACED",
    "clauses",
    "content_words",
    "sentences",
    "split_speaker",
    "stem",
    "stems",
    "tokens",
    "words",
]


def word_set(text: str) -> frozenset[str]:
    """The words of a list that is written as text."""
    return frozenset(text.split())


# The classic stop list of English retrieval (the "default" list at ranks.nl/stopwords), contractions in full.
STOP_WORDS = word_set(
    """a about above after again against all am an and any are as at be because been before being below between both
    but by can cannot could did do does doing down during each few for from further had has have having he her here
    hers herself him himself his how i if in into is it its itself let's me more most my myself no nor not of off on
    once only or other ought our ours ourselves out over own same she should so some such than that the their theirs
    them themselves then there these they this those through to too under until up very was we were what when where
    which while who whom why with would you your yours yourself yourselves aren't can't couldn't didn't doesn't don't
    hadn't hasn't haven't isn't mustn't shan't shouldn't wasn't weren't won't wouldn't he'd he'll he's i'd i'll i'm
    i've it's she'd she'll she's they'd they'll they're they've we'd we'll we're we've you'd you'll you're you've
    here's how's that's there's what's when's where's who's why's"""
)

UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
"""Thai, Lao, Burmese, Khmer, kana and Chinese characters: scripts that put no space between words."""
_WORD = re.compile(rf"[{UNSPACED}]+|[^\W_{UNSPACED}]+(?:'[^\W\d_{UNSPACED}]+)*")
_TOKEN = re.compile(r"\S+")
_FULL_STOP = re.compile("(?<=[。！？｡])(?![。！？｡」』”’）)])")
_SPEAKER = re.compile(r"\s*([^\s:](?:[^:\n]{0,38}[^\s:])?):\s+")
_CLOSERS = "\"'”’»)]}*_`"
_OPENERS = "\"'“‘«([{*_`"

# A full stop behind these is part of the word, whatever follows ...
_TITLES = word_set("mr mrs ms mx dr prof st mt rev hon gen sen gov capt lt col sgt vs no nos fig approx dept")
# ... and behind these only when the sentence goes on in lower case or with a digit.
_SHORT_FORMS = word_set(
    """e.g i.e etc cf al inc ltd co corp bros jr sr a.m p.m am pm u.s u.k ave blvd rd est jan feb mar apr jun jul aug
    sep sept oct nov dec mon tue wed thu fri sat sun"""
)

# Words that begin a clause of their own when enough is said on both sides of them.
_CONJUNCTIONS = word_set(
    """and but so because 'cause cause cuz since while when whenever where which who whose though although unless until
    plus then or if after before as"""
)
_MIN_CLAUSE = 3


def tokens(text: str) -> list[tuple[int, int]]:
    """Start and end of every run of characters between white space."""
    return [found.span() for found in _TOKEN.finditer(text)]


def words(text: str) -> list[str]:
    """The words of `text` in lower case and in order, apostrophes inside a word kept.

    A run of a script without spaces becomes its overlapping pairs of characters, the usual unit for searching it.
    """
    found: list[str] = []
    for word in _WORD.findall(text.lower().replace("\u2019", "'")):
        if len(word) > 2 and _is_unspaced(word[0]):
            found.extend(word[i : i + 2] for i in range(len(word) - 1))
        else:
            found.append(word)
    return found


def _is_unspaced(char: str) -> bool:
    return char >= "\u0e00" and bool(re.match(rf"[{UNSPACED}]", char))


class _Snowball(local):
    """A stemmer for each thread: it keeps the word it works on in itself."""

    def __init__(self) -> None:
        # The package carries no types.
        self.stem = cast("Callable[[str], str]", snowballstemmer.stemmer("english").stemWord)  # pyright: ignore[reportUnknownMemberType]


_snowball = _Snowball()


@lru_cache(maxsize=65_536)
def stem(word: str) -> str:
    """The stem of one lower-case word by Porter's Snowball algorithm for English, its possessive cut off."""
    bare = word[:-2] if word.endswith("'s") else word
    # The stemmer has no use for giant words, and its cost is theirs.
    return _snowball.stem(bare) if len(bare) <= 64 else bare


def stems(text: str) -> list[str]:
    """The stems of all words of `text`, in order."""
    return [stem(word) for word in words(text)]


def content_words(text: str) -> list[str]:
    """The stems of the words that are no stop words, in order, with repetitions."""
    return [stem(word) for word in words(text) if word not in STOP_WORDS]


def sentences(text: str) -> list[str]:
    """The sentences of `text`, each stripped, in order; a line break always ends one.

    A full stop ends no sentence inside a number, a URL or a path (no white space follows), behind a title or initial
    ("Dr. Ilse Brandt", "J. Smith"), behind a list number at the start, or behind an abbreviation that goes on.
    """
    return [text[start:end] for start, end in _sentence_spans(text)]


def _sentence_spans(text: str) -> Iterator[tuple[int, int]]:
    spans = tokens(text)
    start = -1
    for index, (begin, end) in enumerate(spans):
        if start < 0:
            start = begin
        following = spans[index + 1][0] if index + 1 < len(spans) else len(text)
        if (
            index + 1 == len(spans)
            or "\n" in text[end:following]
            or _ends_sentence(text[begin:end], text[following], begin == start)
        ):
            yield from _unspaced_sentences(text, start, end)
            start = -1


def _unspaced_sentences(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Splits once more at the full stops of scripts that put no space behind them."""
    for stop in _FULL_STOP.finditer(text, start, end):
        if start < stop.start() < end and text[start : stop.start()].strip():
            yield start, stop.start()
            start = stop.start()
            while start < end and text[start].isspace():
                start += 1
    if start < end:
        yield start, end


def _ends_sentence(token: str, next_char: str, first: bool) -> bool:
    core = token[-80:].rstrip(_CLOSERS)
    if not core.endswith((".", "!", "?", "…")):
        return False
    if not core.endswith("."):
        return True
    bare = core.strip(_OPENERS + ".").lower()
    if core.endswith("..") or not bare:
        return not first
    if bare in _TITLES or (len(bare) == 1 and bare.isalpha() and bare != "i"):
        return False
    if first and bare.isdigit():
        return False
    return bare not in _SHORT_FORMS or next_char.isupper()


def clauses(sentence: str) -> list[str]:
    """Cuts a sentence into the pieces between its commas, dashes, brackets and conjunctions, in order.

    Joined by single spaces they are the sentence again. A piece holds at least three words where the sentence does,
    so "cats, dogs and birds" stays whole.
    """
    pieces: list[list[str]] = [[]]
    parts = sentence.split()
    for index, part in enumerate(parts):
        last = pieces[-1]
        opens = part[0] in "[(" or part in "-–—"
        joins = part.lower() in _CONJUNCTIONS and len(parts) - index > _MIN_CLAUSE
        stops = bool(last) and (last[-1][-1] in ",;:—])" or last[-1] in "-–—")
        room = len(last) >= _MIN_CLAUSE and len(parts) - index >= _MIN_CLAUSE
        if last and (part[0] == "[" or last[-1][-1] == "]" or (room and (opens or joins or stops))):
            pieces.append([part])
        else:
            last.append(part)
    return [" ".join(piece) for piece in pieces if piece]


def split_speaker(line: str) -> tuple[str, str]:
    """The speaker and the words of a line like "Ann: I moved"; the speaker is empty where the line names none."""
    found = _SPEAKER.match(line)
    return (" ".join(found[1].split()), line[found.end() :]) if found else ("", line)
