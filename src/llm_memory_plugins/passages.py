"""Where to cut a text that is too long to be embedded at once. Pure."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable

from llm_memory_plugins.text import sentences, tokens

_FULL = 0.8  # of what is allowed: a stretch that holds less is tried once more
_TRIES = 3
_NOT_BLANK = re.compile(r"\S")


def spans(text: str, most: int, count: Callable[[str], int]) -> list[tuple[int, int]]:
    """The stretches of `text`, in order: each as long as it may be, but the last two of about equal length.

    A stretch ends with a paragraph where one ends in its second half, else with a sentence, else with a word, and
    within a word that is longer than a stretch may be. The white space between two stretches belongs to neither.

    Args:
        text: Of any length: what is counted in all is a few times its length.
        most: Tokens of a stretch at most. A single character that has more is a stretch nevertheless.
        count: Tokens of a text.

    Returns:
        Start and end of each stretch; a text of at most `most` tokens is one, whole, and a blank text has none.
    """
    if not text or text.isspace():
        return []
    left = count(text)
    if left <= most:
        return [(0, len(text))]
    cutter = _Cutter(text, len(text) / left, count)
    found: list[tuple[int, int]] = []
    start = cutter.behind(0)
    while start < cutter.end:
        if left < 2 * most:
            left = count(text[start : cutter.end])  # it was an estimate: tokens of parts do not quite add up
        if left <= most:
            found.append((start, cutter.end))
            break
        stop, taken = cutter.stretch(start, most) if left >= 2 * most else cutter.half(start, left, most)
        found.append((start, stop))
        left -= taken
        start = cutter.behind(stop)
    return found


class _Cutter:
    def __init__(self, text: str, rate: float, count: Callable[[str], int]) -> None:
        """`rate`: characters of a token, on average."""
        self._text, self._rate, self._count = text, rate, count
        words = tokens(text)
        self._words = [end for _, end in words]
        self.end = self._words[-1]
        after = (start for start, _ in words[1:])
        gaps = zip(self._words, after, strict=False)
        self._paragraphs = [*(end for end, next_ in gaps if text.count("\n", end, next_) > 1), self.end]
        self._sentences: list[int] = []
        at = 0
        for sentence in sentences(text):
            at = text.index(sentence, at) + len(sentence)
            self._sentences.append(at)

    def behind(self, stop: int) -> int:
        """Where the next stretch begins."""
        found = _NOT_BLANK.search(self._text, stop)
        return found.start() if found else len(self._text)

    def stretch(self, start: int, most: int) -> tuple[int, int]:
        """Where a stretch of at most `most` tokens ends, and how many it has."""
        best: tuple[int, int] | None = None
        reach, tries = most * self._rate, 0
        while True:
            stop = self._end_before(start, start + max(int(reach), 1))
            if best and stop == best[0]:
                return best
            taken, tries = self._count(self._text[start:stop]), tries + 1
            if taken > most:
                if best or stop == start + 1:
                    return best or (stop, taken)
                reach = 0.95 * (stop - start) * most / taken
            else:
                best = stop, taken
                if taken >= _FULL * most or stop == self.end or tries >= _TRIES:
                    return best
                reach = (stop - start) * most / max(taken, 1)

    def half(self, start: int, left: int, most: int) -> tuple[int, int]:
        """Where the first of the last two stretches ends, of `left` tokens together, and how many it has."""
        length = self.end - start
        middle = start + length / 2
        reach = length * (0.5 - max(0.25, 1 - most / left))  # so that neither is long, nor tiny
        for ends in (self._paragraphs, self._sentences, self._words):
            at = bisect_right(ends, middle)
            nearest = min(ends[max(at - 1, 0) : at + 1], key=lambda end: abs(end - middle))
            if abs(nearest - middle) <= reach and (taken := self._count(self._text[start:nearest])) <= most:
                return nearest, taken
        return self.stretch(start, (left + 1) // 2)

    def _end_before(self, start: int, furthest: int) -> int:
        half = (start + furthest) // 2
        for ends, nearest in ((self._paragraphs, half), (self._sentences, half), (self._words, start)):
            at = bisect_right(ends, furthest) - 1
            if at >= 0 and ends[at] > nearest:
                return ends[at]
        return min(furthest, self.end)
