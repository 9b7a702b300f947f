"""What of a working memory goes into a context, and how it stands there. Pure."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from llm_memory_plugins.ports import TokenCounter
from llm_memory_plugins.rendering import CLOSING, opening, quoted
from llm_memory_plugins.text import content_words
from llm_memory_plugins.types import Dropped, Piece
from llm_memory_plugins.working import active_path, value
from llm_memory_plugins.working_items import WorkingItem

SOURCE = "working_memory"

_REASONING, _NOTES = "[reasoning]\n", "[notes]\n"
_QUESTION = 2.0  # what the words of a question weigh against the value of an item
_SHORT = 4096  # characters of a text that is worth remembering
_MISSES = 20  # items in a row that do not fit; the rest is then not even counted


def shown(content: Any) -> str:
    """Content as it stands in a context: text as it is, anything else as JSON."""
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False, default=str)


def item_line(item: WorkingItem, place: int = 0) -> str:
    """An item as `- step: content (status) => conclusion`, ending in a newline.

    Args:
        item: The item.
        place: Its place in the active path, which names a step that has no label.
    """
    step = item.step if item.step is not None else place or None
    label = step if isinstance(step, str) else "" if step is None else f"step {step}"
    said = f"{' '.join(label.split())}: {shown(item.content)}" if label else shown(item.content)
    status = "" if item.status == "open" else f" ({item.status})"
    came_out = f" => {item.conclusion}" if item.conclusion else ""
    return f"- {quoted(said + status + came_out)}\n"


class Texts:
    """Tokens and words of texts. Those of short ones are remembered: the next context holds nearly the same lines."""

    def __init__(self, counter: TokenCounter) -> None:
        self._count = counter.count
        self._counted = lru_cache(maxsize=4096)(counter.count)
        self._divided = lru_cache(maxsize=4096)(_words)

    def tokens(self, text: str) -> int:
        """How many it takes."""
        return self._counted(text) if len(text) <= _SHORT else self._count(text)

    def words(self, text: str) -> frozenset[str]:
        """The stems of what it says, without stop words."""
        return self._divided(text) if len(text) <= _SHORT else _words(text)

    def forget(self) -> None:
        """Remember nothing of what was seen so far."""
        self._counted.cache_clear()
        self._divided.cache_clear()


def _words(text: str) -> frozenset[str]:
    return frozenset(content_words(text))


@dataclass(frozen=True, slots=True)
class Composed:
    """What goes into a context, what does not, and the tokens of the whole section."""

    pieces: tuple[Piece, ...]
    dropped: tuple[Dropped, ...]
    tokens: int


@dataclass(frozen=True, slots=True)
class _Candidate:
    """`place`: in the active path, from 1; 0 for what is not on it. `words`: those of the question it holds."""

    item: WorkingItem
    score: float
    place: int = 0
    words: frozenset[str] = frozenset()

    @property
    def line(self) -> str:
        return item_line(self.item, self.place)

    def reason(self, at: datetime) -> str:
        if self.place:
            return "on the active path"
        idle = max(0, round((at - self.item.used_at).total_seconds()))
        named = f"; words {', '.join(sorted(self.words))}" if self.words else ""
        return f"importance {self.item.importance:g}, used {self.item.uses} times, {idle} s ago{named}"


def compose(
    items: Sequence[WorkingItem],
    *,
    at: datetime,
    query: str,
    budget: int | None,
    half_life: float,
    chains: bool,
    texts: Texts,
) -> Composed:
    """Choose and render: the active path in the order of its steps, then the best other items in the order of storing.

    Where not all of the path fits, its end and its beginning go before what lies between.

    Args:
        items: All of a namespace.
        at: Now.
        query: What is asked; empty for nothing.
        budget: Tokens of the section at most, its tags included; None for no limit.
        half_life: Seconds; see `value`.
        chains: Whether there is an active path.
        texts: Counts tokens and finds words.
    """
    path = active_path(items) if chains else ()
    steps = [_Candidate(item, 1.0, place) for place, item in enumerate(path, 1)]
    on_path = {item.id for item in path}
    others = _ranked([item for item in items if item.id not in on_path], query, at, half_life, texts)
    tags = texts.tokens(opening(SOURCE)) + texts.tokens(CLOSING)
    room = _Room(math.inf if budget is None else budget - tags, texts)
    first = room.take([*steps[-1:], *steps[:-1][:1], *reversed(steps[1:-1])], _REASONING)
    then = room.take(others, _NOTES if first else "")
    pieces = [
        *_pieces(sorted(first, key=lambda taken: taken.place), _REASONING, at, texts),
        *_pieces(sorted(then, key=lambda taken: taken.item.seq), _NOTES if first else "", at, texts),
    ]
    chosen = {piece.ids[0] for piece in pieces}
    left = tuple(candidate.item.id for candidate in (*steps, *others) if candidate.item.id not in chosen)
    dropped = Dropped(source=SOURCE, reason="does not fit into the budget", count=len(left), ids=left)
    tokens = sum(piece.tokens for piece in pieces) + tags if pieces else 0
    return Composed(tuple(pieces), (dropped,) if left else (), tokens)


class _Room:
    """The tokens that are left."""

    def __init__(self, tokens: float, texts: Texts) -> None:
        self._left = tokens
        self._texts = texts

    def take(self, candidates: Sequence[_Candidate], heading: str) -> list[_Candidate]:
        """Those that fit, in their order; the first one pays for the heading."""
        taken: list[_Candidate] = []
        price = self._texts.tokens(heading)
        misses = 0
        for candidate in candidates:
            cost = self._texts.tokens(candidate.line) + (0 if taken else price)
            if cost <= self._left:
                self._left -= cost
                taken.append(candidate)
                misses = 0
            elif (misses := misses + 1) == _MISSES:
                break
        return taken


def _pieces(chosen: Sequence[_Candidate], heading: str, at: datetime, texts: Texts) -> list[Piece]:
    lines = [(heading if place == 0 else "") + candidate.line for place, candidate in enumerate(chosen)]
    return [
        Piece(
            text=text,
            tokens=texts.tokens(text),
            source=SOURCE,
            score=candidate.score,
            reason=candidate.reason(at),
            ids=(candidate.item.id,),
        )
        for text, candidate in zip(lines, chosen, strict=True)
    ]


def _ranked(items: Sequence[WorkingItem], query: str, at: datetime, half_life: float, texts: Texts) -> list[_Candidate]:
    """Items, best first: by value and, where something is asked, by the weight of its words they hold.

    A word weighs more the fewer items hold it (inverse document frequency: Sparck Jones, 1972).
    """
    values = [value(item, at, half_life) for item in items]
    most = max(values, default=0.0) or 1.0
    asked = texts.words(query)
    held = [asked & texts.words(_text_of(item)) if asked else asked for item in items]
    counts = Counter(word for words in held for word in words)
    weights = {word: math.log(1 + len(items) / count) for word, count in counts.items()}
    total = sum(weights.values())
    ranked: list[_Candidate] = []
    for item, worth, words in zip(items, values, held, strict=True):
        score = worth / most
        if total:
            score = (score + _QUESTION * sum(weights[word] for word in words) / total) / (1 + _QUESTION)
        ranked.append(_Candidate(item, score, words=words))
    return sorted(ranked, key=lambda candidate: (-candidate.score, -candidate.item.turn))


def _text_of(item: WorkingItem) -> str:
    return "\n".join((str(item.step or ""), shown(item.content), item.conclusion or "", *item.tags))
