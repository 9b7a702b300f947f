"""The anchor ledger: the exact strings a summary must not lose, found by rule and put back where they are missing.

Summaries of summaries lose numbers, names and addresses first, and nothing says so. Here every such *anchor* of the
messages is looked for, literally, in what was kept; for those that are gone a short line is added. Because the check
runs after every summariser and on every level, what the ledger knows survives any number of roll-ups.

Precision matters as much as recall: each false anchor is paid for in every summary above it. So a capitalised word is
a name only where English would not write a capital anyway, and code blocks give up addresses and paths alone.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from llm_memory_plugins.anchor_patterns import Kind, spans
from llm_memory_plugins.telegraphic import excerpt
from llm_memory_plugins.text import UNSPACED, split_speaker
from llm_memory_plugins.types import SummaryLine

__all__ = ["Anchor", "find", "missing", "repair"]

# Runs of ASCII letters and digits, of other letters, and each character of a script without spaces on its own.
_WORD = re.compile(rf"[a-z0-9]+|[{UNSPACED}]|[^\W_a-z0-9{UNSPACED}]+")
_POINTS = (".", ",", ":")


@dataclass(frozen=True, slots=True)
class Anchor:
    """A string that has to survive as it is.

    Attributes:
        kind: What it was recognised as.
        text: The characters as they stand in the source, white space squeezed.
    """

    kind: Kind
    text: str


_Found = tuple[Anchor, tuple[int, int]]


def find(text: str) -> tuple[Anchor, ...]:
    """The distinct anchors of `text`, in the order in which they first stand there."""
    return tuple(dict.fromkeys(anchor for anchor, _ in _find(text, notes=False)))


def missing(sources: Sequence[SummaryLine], kept: Sequence[SummaryLine]) -> tuple[Anchor, ...]:
    """The distinct anchors of `sources` that stand nowhere in `kept`.

    Compared literally but for case and white space; "5" stands neither in "15" nor in "5.75".
    """
    return tuple(anchor for gone in _missing(sources, kept) for anchor, _ in gone)


def repair(sources: Sequence[SummaryLine], kept: Sequence[SummaryLine]) -> list[SummaryLine]:
    """`kept`, and a short line for each source whose anchors it misses; afterwards `missing` finds nothing.

    A short line quotes the few words around each anchor. Lines come in the order of their `seqs`, those of the same
    message in the order of `kept`.
    """
    lines = list(kept)
    for source, gone in zip(sources, _missing(sources, kept), strict=True):
        if gone:
            lines.append(replace(source, text=_quote(source.text, gone)))
    return sorted(lines, key=lambda line: line.seqs)


def _find(text: str, *, notes: bool) -> list[tuple[Anchor, tuple[int, int]]]:
    """The anchors and where they stand."""
    return [
        (Anchor(kind, " ".join(text[start:end].split())), (start, end)) for start, end, kind in spans(text, notes=notes)
    ]


def _missing(sources: Sequence[SummaryLine], kept: Sequence[SummaryLine]) -> list[list[_Found]]:
    """For each source what is gone; an anchor that several sources hold is charged to the first."""
    notes = _are_notes(sources)
    index = _Index(line.text for line in kept)
    seen: set[str] = set()
    lost: list[list[_Found]] = []
    for source in sources:
        gone: list[_Found] = []
        for anchor, span in _find(source.text, notes=notes):
            key = _key(anchor.text)
            if key not in seen and key not in index:
                gone.append((anchor, span))
            seen.add(key)
        lost.append(gone)
    return lost


def _are_notes(lines: Sequence[SummaryLine]) -> bool:
    """Whether the lines begin in lower case behind their speaker, as short forms do."""
    firsts = [split_speaker(line.text)[1][:1] for line in lines]
    return sum(first.islower() for first in firsts) * 2 > len(firsts)


def _key(text: str) -> str:
    return " ".join(text.casefold().split())


class _Index:
    """Answers whether a key stands in some lines; costs the places of the key's rarest word, not the lines' length."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._text = "\n".join(map(_key, lines))
        self._places: defaultdict[str, list[int]] = defaultdict(list)
        for word in _WORD.finditer(self._text):
            self._places[word[0]].append(word.start())

    def __contains__(self, key: str) -> bool:
        words = [(len(self._places.get(word[0], ())), word.start(), word[0]) for word in _WORD.finditer(key)]
        if not words:
            return key in self._text
        _, offset, rarest = min(words)
        return any(self._stands(key, place - offset) for place in self._places.get(rarest, ()))

    def _stands(self, key: str, start: int) -> bool:
        end = start + len(key)
        return start >= 0 and self._text.startswith(key, start) and not _goes_on(self._text, start, end)


def _goes_on(text: str, start: int, end: int) -> bool:
    """Whether what stands there is only part of a longer word or number."""
    before, after = text[max(0, start - 2) : start], text[end : end + 2]
    if _joined(before[-1:], text[start]) or _joined(text[end - 1], after[:1]):
        return True
    inside = before[-1:] in _POINTS and before[:1].isdigit() and text[start].isdigit()
    return inside or (after[:1] in _POINTS and after[1:].isdigit() and text[end - 1].isdigit())


def _joined(left: str, right: str) -> bool:
    return left.isascii() and right.isascii() and left.isalnum() and right.isalnum()


def _quote(text: str, gone: Sequence[_Found]) -> str:
    """The line for a source: the words around the anchors that are gone, or the bare anchors where that fails."""
    speaker, body = split_speaker(text)
    offset = len(text) - len(body)
    within = [(start - offset, end - offset) for _, (start, end) in gone if start >= offset]
    parts = [excerpt(body, within)]
    line = f"{speaker}: " if speaker else ""
    index = _Index([line + parts[0]])
    parts += [anchor.text for anchor, _ in gone if _key(anchor.text) not in index]
    return line + "; ".join(part for part in parts if part)
