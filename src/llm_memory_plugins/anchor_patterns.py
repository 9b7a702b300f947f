# ruff: noqa: RUF001 -- the quotation marks, dashes and full stops of other scripts are meant
"""Where the anchors of a text are: numbers, times, names, ids, addresses and paths, by rule.

A hostile text costs no more than its length: every pattern begins at a fixed place of its run of characters (the
look-behind) and its repetitions are bounded, possessive, or kept apart by a separator.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from typing import Literal, cast

from llm_memory_plugins.text import STOP_WORDS, tokens, word_set

__all__ = ["Kind", "Span", "spans"]

Kind = Literal["url", "email", "path", "id", "time", "phone", "number", "name"]
Span = tuple[int, int, Kind]

_MONTH = (
    r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?|Oct(?:ober)?"
    r"|Nov(?:ember)?|Dec(?:ember)?)\b\.?"
)
_DAY = r"\d{1,2}(?:st|nd|rd|th)?"
_CLOCK = r"\d{1,2}:\d{2}(?::\d{2}(?:\.\d{1,9})?)?(?!\d)"
_AMPM = r"(?:[ap]m\b|[AP]M\b|[ap]\.m\.)"
_FILES = (
    "bat|bin|c|cfg|conf|cpp|cs|css|csv|db|docx?|env|exe|gif|go|gz|h|html?|ini|ipynb|java|jpe?g|json|jsonl|js|jsx|key|log"
    "|lock|md|mov|mp3|mp4|odt|parquet|pdf|pem|php|png|pptx?|proto|ps1|py|rb|rs|sh|sql|sqlite|svg|tar|tf|tgz|toml|tsv"
    "|tsx?|txt|vue|wav|xlsx?|xml|ya?ml|zip"
)
_UNIT = r"(?:%|‰|°[CF]?|[$€£¥₹₽₩]|(?:k|K|m|M|bn|[kKMGT]i?[bB]|[kcm]m|[km]?g|ms|USD|EUR|GBP|CHF|JPY|INR)\b)"
_CURRENCY = r"(?:US|CA|AU|NZ|HK)?[$€£¥₹₽₩]|(?:USD|EUR|GBP|CHF|JPY|INR|Rs\.?)\s"
_SIGN = r"(?:(?<!#)[#№])?[+-]?"
_NEW = r"(?<![A-Za-z0-9_])"  # not inside a word; in Chinese text a number stands right behind one
_RUN = r"[A-Za-z0-9_-]"
_PART = r"[A-Za-z0-9_]{1,200}+"
_FREE = r"[^\s\"'<>|*?`,;]{1,2000}+"

# Tried in this order at each position; the first that fits names the kind.
_PATTERNS: tuple[tuple[Kind, str], ...] = (
    ("url", r"(?<![A-Za-z0-9.+-])(?:[A-Za-z][A-Za-z0-9+.-]{1,15}://|www\.)[^\s<>\"`|\\^，。）」]{2,2000}+"),
    ("email", r"(?<![\w.+-])[\w.+-]{1,64}+@[\w-]{1,63}+(?:\.[\w-]{1,63}+)++"),
    ("path", rf"(?<![A-Za-z0-9])[A-Za-z]:\\{_FREE}|(?<![\w\\])\\\\[\w.$-]++\\{_FREE}"),
    ("path", r"(?<![\w.:/~<-])(?:~|\.{1,2})?/[\w.@+~-]++(?:/[\w.@+~-]++)*+/?"),
    ("path", rf"(?<![\w./\\@-])\.?[\w-]{{1,100}}+(?:[./][\w-]{{1,100}}+)*?\.(?:{_FILES})(?![\w/-])(?!\.\w)"),
    ("id", r"(?<![\w-])[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}(?![\w-])"),
    ("time", rf"(?<![\d.-]){_NEW}\d{{4}}-\d{{2}}(?:-\d{{2}}(?:[T ]{_CLOCK}(?:Z|[+-]\d\d:?\d\d)?)?)?(?![A-Za-z0-9_-])"),
    ("time", rf"(?<![./-]){_NEW}(?:\d{{1,2}}/\d{{1,2}}/(?:\d{{4}}|\d{{2}})|\d{{4}}/\d{{1,2}}/\d{{1,2}})(?![\w/-])"),
    ("time", rf"(?<![./-]){_NEW}\d{{1,2}}\.\d{{1,2}}\.\d{{4}}(?![\w/-])"),
    ("time", rf"(?<!\w)(?:{_MONTH}\s{_DAY}\b|{_DAY}\s(?:of\s)?{_MONTH})(?:,?\s\d{{4}}\b)?"),
    ("time", rf"(?<!\w){_MONTH},?\s\d{{4}}\b"),
    ("time", rf"(?<![:.]){_NEW}(?:{_CLOCK}(?:\s?{_AMPM})?|\d{{1,2}}\s?(?:{_AMPM}|o['’]clock\b))"),
    ("time", r"(?<!\d)(?:\d{4}年(?:\d{1,2}月(?:\d{1,2}[日号])?)?|\d{1,2}月\d{1,2}[日号])"),
    ("time", r"(?<!\w)(?:Q[1-4]\s\d{4}|(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day)\b"),
    ("time", rf"(?<!\w)(?!May\b|March\b|Mar\b|Jan\b|Jun\b){_MONTH}"),
    ("phone", rf"{_NEW}\+(?:\d{{7,15}}|\d{{1,3}}(?:[ .-]\(?\d{{1,8}}\)?){{1,6}})(?!\w)"),
    ("phone", rf"(?<![.,/-]){_NEW}(?:\(\d{{1,5}}\)[ .-]?|\d{{2,5}}[ .-])\d{{2,5}}(?:[ .-]\d{{2,5}}){{1,4}}(?!{_RUN})"),
    ("number", rf"{_NEW}(?:{_CURRENCY})-?\d(?:,?\d)*+(?:\.\d++)?(?:\s?(?:[kKmMB]|bn|(?:m|b|tr)illion|thousand)\b)?"),
    ("id", rf"(?<!-){_NEW}(?={_RUN}{{0,200}}\d)(?={_RUN}{{0,200}}[A-Za-z]){_PART}(?:[-:]{_PART})*+"),
    ("number", rf"(?<![.,]){_NEW}{_SIGN}(?:\d{{1,3}}(?:,\d{{3}})++|\d++)(?:[.:/x-]\d++)*+(?:\s?{_UNIT})?"),
)
_ANCHOR = re.compile("|".join(f"(?P<{kind}_{i}>{pattern})" for i, (kind, pattern) in enumerate(_PATTERNS)))
_IN_CODE = frozenset(("url", "email", "path"))
_FENCE = re.compile(r"^[ \t]*(?:```|~~~)", re.MULTILINE)
_COUNTED = re.compile(r"[ \u00a0-]([^\W\d_]{2,24})(?!\w)")
_YEAR = re.compile(r"(?:19|20)\d\d")
_BALANCED = {")": "(", "]": "[", "}": "{"}


def spans(text: str, *, notes: bool = False) -> list[Span]:
    """Start, end and kind of every anchor of `text`, in order, never overlapping.

    Args:
        text: Any text, with its speaker or without.
        notes: Whether its sentences begin in lower case, so that a capital means a name at their start, too.
    """
    fences = [found.start() for found in _FENCE.finditer(text)]
    found = list(_patterned(text, fences))
    found += _names(text, fences, found, notes=notes)
    return sorted(found)


def _in_code(fences: list[int], position: int) -> bool:
    return bisect_right(fences, position) % 2 == 1


def _patterned(text: str, fences: list[int]) -> Iterator[Span]:
    for match in _ANCHOR.finditer(text):
        kind = cast(Kind, str(match.lastgroup).partition("_")[0])
        start, end = match.span()
        if _in_code(fences, start) and kind not in _IN_CODE:
            continue
        if kind in ("url", "path", "email"):
            end = _without_punctuation(text, start, end)
        elif kind == "phone" and sum(char.isdigit() for char in match[0]) < 7:
            kind = "number"
        elif kind == "number" and match[0].isdigit():
            if _enumerates(text, start, end):
                continue
            counted = _COUNTED.match(text, end)
            if counted and counted[1].lower() not in STOP_WORDS and not _YEAR.fullmatch(match[0]):
                end = counted.end()
        yield start, end, kind


def _without_punctuation(text: str, start: int, end: int) -> int:
    """Gives back the marks behind an address that belong to the sentence, as in "(see https://a.org)."."""
    while end > start:
        last = text[end - 1]
        if last in ".,;:!?'’”*_" or (
            last in _BALANCED and text.count(_BALANCED[last], start, end) < text.count(last, start, end)
        ):
            end -= 1
        else:
            break
    return end


def _enumerates(text: str, start: int, end: int) -> bool:
    """Whether a number only counts: the items of a list ("2. Boil the water"), or the headings ("### Step 3")."""
    line = text[max(0, start - 80, text.rfind("\n", max(0, start - 80), start) + 1) : start]
    if line.lstrip().startswith("#"):
        return True
    return (
        text[end : end + 1] in (".", ")")
        and text[end + 1 : end + 2] in (" ", "", "\n", "*")
        and not line.strip(" \t-*#")
    )


# --- names

_PARTICLES = word_set("de del della der den di da dos du la le van von af bin ibn al el ten ter y")
_NOT_NAMES = STOP_WORDS | word_set(
    """ok okay yes no yeah hey hi hello thanks thank please well wow oh sure good nice cool awesome sorry congrats
    congratulations welcome dear maybe perhaps however also still just like love let lets tv pm am ps etc faq will may
    might must shall can new last next today tomorrow yesterday tonight step note tip example question answer summary
    ask call check email get give go got had have keep make meet met read remember saw see send show take tell text
    thought told try use went write yep nope bye aww aw hmm haha lol omg gosh man guys"""
)
_TITLES = word_set("mr mrs ms mx dr prof st sr jr")
_GERMAN = word_set("der das und ist nicht ich ein eine einen mit auf für zu im den dem von sich auch")
_EDGE = ".,;:!?…\"'“”‘’«»()[]{}<>*_~-–—•+&/"
_CLOSERS = "\"'“”’»)]}*_"
_LONGEST_NAME = 5
_LINE = re.compile(r"[^\n]+")


class _Names:
    """Collects the names of one line, word by word."""

    def __init__(self, text: str, *, notes: bool) -> None:
        self.text = text
        self.notes = notes
        self.found: list[tuple[int, int, int]] = []
        self.words = self.capitals = self.shouted = 0
        self._run: list[tuple[int, int, bool]] = []
        self._begins = True

    def word(self, start: int, end: int) -> None:
        """Takes the next word; joins it to the name before it where nothing stands between."""
        raw = self.text[start:end]
        core = raw.strip(_EDGE)
        if not core:
            self.end()
            self._begins = self._begins or _ends(raw)
            return
        inner = start + raw.find(core)
        if inner > start:
            self.end()
            self._begins = self._begins or raw[0] in '"“‘«'
        if core.endswith(("'s", "’s")):
            core = core[:-2]
        tail = raw[inner - start + len(core) :]
        self.words += 1
        if _is_capital(core):
            self.capitals += not self._begins
            self.shouted += len(core) > 1 and core.isupper()
            self._run.append((inner, inner + len(core), self._begins))
        elif self._run and core in _PARTICLES:
            self._run.append((inner, inner + len(core), False))
        else:
            self.end()
        short = tail == "." and (core.lower() in _TITLES or (len(core) == 1 and core.isalpha()))
        if tail and not short:
            self.end()
        self._begins = not short and _ends(tail)

    def skip(self, raw: str) -> None:
        """Passes over a word that can be no part of a name."""
        self.end()
        self._begins = _ends(raw)

    def end(self) -> None:
        """Closes the name that is open, if it is one."""
        run, self._run = self._run, []
        while run and self._lower(run[-1]) in _NOT_NAMES | _PARTICLES:
            run.pop()
        while run and (self._lower(run[0]) in (_NOT_NAMES if run[0][2] else STOP_WORDS) or self._is_verb(run[0])):
            run.pop(0)
        # "Define Your Goals" is a title: names have no capital function words, and end sooner.
        if not run or len(run) > _LONGEST_NAME or any(self._lower(word) in STOP_WORDS for word in run):
            return
        # A capital at the start of a sentence says nothing, except in notes, whose sentences begin in lower case.
        if (len(run) > 1 or not run[0][2] or self.notes) and run[-1][1] - run[0][0] > 1:
            self.found.append((run[0][0], run[-1][1], len(run)))

    def _lower(self, word: tuple[int, int, bool]) -> str:
        return self.text[word[0] : word[1]].lower().replace("’", "'")

    def _is_verb(self, word: tuple[int, int, bool]) -> bool:
        return word[2] and word[1] - word[0] > 4 and self._lower(word).endswith(("ed", "ing"))


def _ends(tail: str) -> bool:
    return tail.rstrip(_CLOSERS).endswith((".", "!", "?", "…", ":", "。", "！", "？"))


def _is_capital(core: str) -> bool:
    if not core or len(core) > 40 or not (core[0].isupper() or core[1:2].isupper()):
        return False
    return all(char.isalpha() or char in "'’-.&" for char in core)


def _names(text: str, fences: list[int], taken: list[Span], *, notes: bool) -> Iterator[Span]:
    starts = [start for start, _, _ in taken]
    lines = [line for line in _LINE.finditer(text) if not _in_code(fences, line.start())]
    # German writes every noun with a capital: there only two in a row make a name.
    fewest = 2 if _is_german(text) else 1
    for line in lines:
        if line[0].lstrip().startswith(("#", "|")):
            continue  # headings and tables are written in capitals
        names, bold = _Names(text, notes=notes), False
        for start, end in tokens(line[0]):
            begin, stop, raw = line.start() + start, line.start() + end, line[0][start:end]
            bold = bold or raw.startswith("**")
            if bold or raw[0] == "`" or _overlaps(starts, taken, begin, stop):
                names.skip(raw)
            else:
                names.word(begin, stop)
            bold = bold and "**" not in raw[1:]
        names.end()
        titled = len(lines) > 1 and names.words > 2 and names.capitals * 2 > names.words
        if not titled and not (names.words > 3 and names.shouted * 2 > names.words):
            for start, end, size in names.found:
                if size >= fewest:
                    yield start, end, "name"


def _is_german(text: str) -> bool:
    sample = text[:4000].split()
    return sum(word in _GERMAN for word in sample) * 12 > len(sample)


def _overlaps(starts: list[int], taken: list[Span], start: int, end: int) -> bool:
    index = bisect_right(starts, end - 1) - 1
    return index >= 0 and taken[index][1] > start
