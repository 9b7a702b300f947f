"""What is read from a text when it is stored, and from a question when it is asked, so that both can meet. Pure.

A text gives its stems and two small numbers; a question its stems, whose words it wants, and from when.

Names are taken out of what is embedded and matched: in a chat between two people they stand in every question and, as a
label, at every message, so they say nothing about *which* message, while small embedders are dominated by them. The
same holds for roles, which are never taken out of a text ("user" is a word, too) but are who "I" and "you" may mean.
"""

from __future__ import annotations

import math
import re
from calendar import monthrange
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Literal

from llm_memory_plugins import telegraphic
from llm_memory_plugins.salience import Reader
from llm_memory_plugins.text import STOP_WORDS, content_words, word_set, words

__all__ = ["ASKERS", "ROLES", "Answer", "Dates", "Query", "Traits", "parse", "traits"]

Answer = Literal["time", "number", "person", ""]

ASKERS = word_set("user human")
"""The roles of who asks, when the conversation was held with a model."""
_ANSWERERS = word_set("assistant ai model bot")
ROLES = ASKERS | _ANSWERERS | word_set("system tool")

# Names that are words: in a question written without capitals they are taken for the word.
_ALSO_WORDS = STOP_WORDS | word_set(
    """will may mark grace hope joy rose art bill jack pat rob frank guy drew chase faith summer dawn june april august
    ray dean ivy lily daisy ruby pearl amber olive violet penny sandy rich miles max wade cliff grant lance pierce"""
)


@dataclass(frozen=True, slots=True)
class Dates:
    """A span of days a question names, both ends included.

    Attributes:
        every_year: The year was not said ("in May"): any will do, and that of `first` means nothing.
    """

    first: date
    last: date
    every_year: bool = False

    def closeness(self, day: date) -> float:
        """How well a day fits, 0..1: less outside, and less where the span is long and thus says little.

        People tell things some days after, so what lies near the span fits nearly as well: half at a week.
        """
        years = (day.year - 1, day.year, day.year + 1) if self.every_year else (self.first.year,)
        gap = min(_gap(day, _in_year(self.first, year), self._end(year)) for year in years)
        length = (self.last - self.first).days + 1
        sharpness = 1.0 if length <= 7 else 0.5 if length <= 31 else 0.2
        return sharpness / (1 + (gap / 7) ** 2)

    def _end(self, year: int) -> date:
        return _in_year(self.last, year + self.last.year - self.first.year)


@dataclass(frozen=True, slots=True)
class Query:
    """A question, taken apart.

    Attributes:
        text: As it was asked.
        bare: The same without the participants' names: what to embed.
        terms: Its distinct content stems, in order: what to look up.
        speakers: Participants it names, as they were given, in lower case; or the model's roles when it asks what
            "you" said.
        of_asker: Whether the words of whoever asks are preferred: not when it asks what the model said.
        dates: Spans of time it names.
        answer: The kind of answer it wants, where its wording tells.
        phrases: What stands in quotation marks, in lower case.
    """

    text: str
    bare: str
    terms: tuple[str, ...]
    speakers: frozenset[str] = frozenset()
    of_asker: bool = True
    dates: tuple[Dates, ...] = ()
    answer: Answer = ""
    phrases: tuple[str, ...] = ()


_QUOTED = re.compile(r"[\"“«]([^\"“”«»]{2,200})[\"”»]")
_ASKS_MODEL = re.compile(
    r"\b(?:did|have|had|were)\s+you\b|\byou\s+(?:said|told|gave|recommended|suggested|advised)\b", re.I
)
_ANSWERS: tuple[tuple[Answer, re.Pattern[str]], ...] = (
    (
        "time",
        re.compile(r"\b(?:when|how long|(?:what|which)\s+(?:day|date|week|month|season|year|time))\b", re.IGNORECASE),
    ),
    (
        "number",
        re.compile(
            r"\bhow\s+(?:many|much|often|old|far|tall|big)\b|\bwhat\s+(?:number|amount|percentage)\b", re.IGNORECASE
        ),
    ),
    ("person", re.compile(r"\b(?:who|whom|whose)\b", re.IGNORECASE)),
)


def parse(text: str, now: datetime, speakers: Iterable[str] = ()) -> Query:
    """Take a question apart.

    Args:
        text: Any text; it need not be a question.
        now: What "yesterday" counts from.
        speakers: Names or roles of who speaks in the memory that is searched.
    """
    named, bare = _without_names(text, sorted(set(speakers)))
    told = _ASKS_MODEL.search(text) is not None
    return Query(
        text=text,
        bare=bare,
        terms=tuple(dict.fromkeys(content_words(bare))),
        speakers=named | (_ANSWERERS if told else frozenset[str]()),
        of_asker=not told,
        dates=tuple(_dates(text, now.date())),
        answer=_answer(text),
        phrases=tuple(dict.fromkeys(found.lower() for found in _QUOTED.findall(text))),
    )


def _answer(text: str) -> Answer:
    for kind, pattern in _ANSWERS:
        if pattern.search(text):
            return kind
    return ""


def _without_names(text: str, speakers: list[str]) -> tuple[frozenset[str], str]:
    """The participants that are named, and the text without them; as it was where nothing else would be left."""
    named: set[str] = set()
    bare = text
    for speaker in speakers:
        parts = speaker.split()
        if not parts or speaker.lower() in ROLES:
            continue
        lower = text == text.lower() and parts[0].lower() not in _ALSO_WORDS
        names = {" ".join(parts), parts[0]}
        tail = "(?:['\u2019]s)?(?!\\w)"
        pattern = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
        found = re.compile(rf"(?<!\w)(?:{pattern}){tail}", re.IGNORECASE if lower else 0)
        if found.search(text):
            named.add(speaker.lower())
            bare = found.sub(" ", bare)
    bare = " ".join(bare.split())
    return frozenset(named), bare if words(bare) else text


# --- dates

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = (
    r"(?P<month>Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?|Oct(?:ober)?"
    r"|Nov(?:ember)?|Dec(?:ember)?|january|february|april|june|july|august|september|october|november|december)\b\.?"
)
_DAY = r"(?P<day>\d{1,2})(?:st|nd|rd|th)?\b"
_YEAR = r"(?P<year>(?:19|20)\d\d)\b"
_ABSOLUTE = tuple(
    re.compile(pattern, re.ASCII)
    for pattern in (
        r"\b(?P<year>(?:19|20)\d\d)-(?P<number>\d\d)(?:-(?P<day>\d\d))?\b",
        rf"\b{_MONTH}\s+{_DAY}(?:,?\s+{_YEAR})?",
        rf"\b{_DAY}\s+(?:of\s+)?{_MONTH}(?:,?\s+{_YEAR})?",
        rf"\b{_MONTH}(?:,?\s+(?:of\s+)?{_YEAR})?",
        rf"\b{_YEAR}",
    )
)
_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_COUNTS = {"a": 1, "an": 1, **{word: count for count, word in enumerate(_NUMBERS, 1)}}
_AGO = re.compile(
    rf"\b(?P<count>\d{{1,3}}|an?|{'|'.join(_NUMBERS)})\s+(?P<unit>day|week|month|year)s?\s+ago\b", re.ASCII
)
_RELATIVE = re.compile(
    r"\b(?:(?P<word>today|tonight|yesterday)|(?P<which>last|this|past)\s+(?P<unit>week|weekend|month|year)"
    rf"|(?:last|on|this\s+past)\s+(?P<weekday>{'|'.join(_DAYS)}))\b"
)
_UNIT_DAYS = {"day": 1, "week": 7, "weekend": 7, "month": 30, "year": 365}


def _dates(text: str, today: date) -> Iterable[Dates]:
    rest = text
    for pattern in _ABSOLUTE:
        for found in pattern.finditer(rest):
            span = _absolute(found)
            if span:
                yield span
        rest = pattern.sub(" ", rest)
    low = text.lower()
    for found in _AGO.finditer(low):
        count = _COUNTS.get(found["count"]) or int(found["count"])
        unit = _UNIT_DAYS[found["unit"]]
        middle = today - timedelta(days=min(count * unit, (today - date.min).days - 365))
        yield Dates(middle - timedelta(days=unit // 2), middle + timedelta(days=unit // 2))
    for found in _RELATIVE.finditer(low):
        yield _relative(found, today)


def _absolute(found: re.Match[str]) -> Dates | None:
    groups = found.groupdict()
    year, name, day = groups.get("year"), groups.get("month"), groups.get("day")
    month = int(groups.get("number") or 0) or (_MONTHS.index(name[:3].lower()) + 1 if name else 0)
    known = int(year) if year else 2000  # a leap year: 29 February is a day
    if not month:
        return Dates(date(known, 1, 1), date(known, 12, 31))
    if month > 12:
        return None
    length = monthrange(known, month)[1]
    if day and 1 <= int(day) <= length:
        return Dates(date(known, month, int(day)), date(known, month, int(day)), not year)
    return Dates(date(known, month, 1), date(known, month, length), not year)


def _relative(found: re.Match[str], today: date) -> Dates:
    if found["word"]:
        day = today - timedelta(days=found["word"] == "yesterday")
        return Dates(day, day)
    if found["weekday"]:
        back = (today.weekday() - _DAYS.index(found["weekday"]) - 1) % 7 + 1
        return Dates(today - timedelta(days=back), today - timedelta(days=back))
    if found["unit"] == "weekend":
        saturday = today - timedelta(days=(today.weekday() - 5) % 7)
        return Dates(saturday, saturday + timedelta(days=1))
    if found["which"] == "past":
        return Dates(today - timedelta(days=_UNIT_DAYS[found["unit"]]), today)
    first = _begin(today, found["unit"])
    if found["which"] == "this":
        return Dates(first, today)
    last = first - timedelta(days=1)
    return Dates(_begin(last, found["unit"]), last)


def _begin(day: date, unit: str) -> date:
    if unit == "week":
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if unit == "month" else day.replace(month=1, day=1)


def _in_year(day: date, year: int) -> date:
    year = min(max(year, 1), 9999)
    return day.replace(year=year, day=min(day.day, monthrange(year, day.month)[1]))


def _gap(day: date, first: date, last: date) -> int:
    return max(0, (first - day).days, (day - last).days)


# --- texts

_WORDS_IN = 200_000  # characters whose words are looked up
_READ = 1000  # characters that tell what kind of text it is
_DULLEST = 6.0  # -log of the rate below which texts are equally dull


@dataclass(frozen=True, slots=True)
class Traits:
    """The ranking's view of a text.

    Attributes:
        counts: Its content stems and how often each stands in it: the postings of BM25.
        length: How many content words it has, with repetitions.
        telling: How likely it is to be asked about at all, 0..1, by its form alone (see `salience`); 0 for documents.
    """

    counts: Mapping[str, int]
    length: int
    telling: float


def traits(text: str, *, said: bool = True) -> Traits:
    """Read a text once, when it is stored; its speaker's name is no part of it.

    Args:
        text: What is stored. Of very long texts the words of the first 200,000 characters count.
        said: Whether somebody said it. How telling a document is, is not asked: that would take a millisecond.
    """
    found = content_words(text[:_WORDS_IN])
    telling = 0.0
    if said:
        rate = Reader().rate("", telegraphic.parse(text[:_READ]))
        telling = 1 - min(_DULLEST, max(0.0, -math.log(max(rate, 1e-9)))) / _DULLEST
    return Traits(counts=Counter(found), length=len(found), telling=telling)
