"""Which messages of a session's end go into a context: a valid conversation within the window and the budget.

Pure. The rules are those all large providers accept: one system message, first; then a user message; a tool call
stays with all of its results, directly before them; nothing is cut but at whole turns, save that the newest turn may
lose its middle when it alone is larger than the budget; the newest user message always stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import chain, dropwhile

from llm_memory_plugins.errors import BudgetError
from llm_memory_plugins.ports import TokenCounter
from llm_memory_plugins.rendering import message_line
from llm_memory_plugins.types import Dropped, Message, Tail, Window, message_ids

Group = tuple[Message, ...]
"""Messages that stay or go together: one message, or tool calls with all their results."""

_SHORTENED = " … [shortened]"
_TOKEN_CHARACTERS = 8  # hardly any text has more characters a token; bounds the search in `shortened`


@dataclass(frozen=True, slots=True)
class Selection:
    """The messages of a window, what they cost as rendered, and what was left out."""

    messages: tuple[Message, ...]
    tokens: int
    dropped: tuple[Dropped, ...]


@dataclass(frozen=True, slots=True)
class _Turn:
    groups: tuple[Group, ...]
    tokens: int
    whole: bool = True

    @property
    def first(self) -> Message:
        return self.groups[0][0]

    @property
    def messages(self) -> Iterable[Message]:
        return chain.from_iterable(self.groups)


def cost(message: Message, counter: TokenCounter) -> int:
    """Tokens of a message as rendered: as counted at write, or anew when another tokenizer did that."""
    return message.tokens if message.tokenizer == counter.name else counter.count(message_line(message))


def counted(message: Message, counter: TokenCounter) -> Message:
    """The message with its tokens filled in."""
    return replace(message, tokens=counter.count(message_line(message)), tokenizer=counter.name)


def grouped(messages: Iterable[Message]) -> tuple[list[Group], list[Dropped]]:
    """Messages as groups that may be cut between, in order, and what cannot be sent to a model at all.

    Left out are results without a call, calls without all their results, and messages that say nothing. Results
    are moved up to the call they answer.
    """
    groups: list[list[Message]] = []
    waiting: list[tuple[list[Message], set[str]]] = []  # groups with unanswered calls
    gone: dict[str, list[Message]] = {}
    for message in messages:
        if message.role == "tool":
            call = message.tool_call_id or ""
            asked = next((entry for entry in reversed(waiting) if call in entry[1]), None)
            if asked is None:
                gone.setdefault("a tool result without its call", []).append(message)
            else:
                asked[0].append(message)
                asked[1].discard(call)
        elif message.tool_calls:
            groups.append([message])
            waiting.append((groups[-1], {call.id for call in message.tool_calls}))
        elif _says(message):
            groups.append([message])
        else:
            gone.setdefault("it says nothing", []).append(message)
    for group, unanswered in waiting:
        if unanswered:
            gone.setdefault("a tool call without all its results", []).extend(group)
            groups.remove(group)
    dropped = [_dropped(reason, left_out) for reason, left_out in gone.items()]
    return [tuple(group) for group in groups], dropped


def shortened(message: Message, limit: int, counter: TokenCounter) -> Message | None:
    """The message with its text cut so that it renders to at most `limit` tokens, or None when nothing fits.

    The framework's own encoding goes, since it holds the whole text.
    """
    low, high, best = 0, min(len(message.content), limit * _TOKEN_CHARACTERS), None
    while low <= high:
        middle = (low + high) // 2
        text = message.content[:middle].rstrip() + _SHORTENED
        cut = counted(replace(message, content=text, payload=None), counter)
        if cut.tokens <= limit:
            best, low = cut, middle + 1
        else:
            high = middle - 1
    return best


def select(
    tail: Tail,
    window: Window,
    *,
    counter: TokenCounter,
    max_tokens: int | None = None,
    keep_after: int | None = None,
    not_before: datetime | None = None,
) -> Selection:
    """The messages of `tail` that a window and a budget admit.

    Args:
        tail: The end of a session, at least as long as the window.
        window: Turns, tokens or seconds.
        counter: Counts what was counted by another tokenizer, or has to be shortened.
        max_tokens: Budget of the rendered lines.
        keep_after: Turns with a message of a higher `seq` than this stay even when older than the window.
        not_before: Messages created earlier have expired and count as gone.

    Raises:
        BudgetError: When the newest user message does not fit even shortened.
    """
    budget = min(
        (n for n in (max_tokens, window.size if window.kind == "tokens" else None) if n is not None), default=None
    )
    alive = _alive(not_before)
    groups, dropped = grouped(m for m in tail.messages if m.role != "system" and alive(m))
    systems = [m for m in (tail.system, *tail.messages) if m and m.role == "system" and alive(m) and m.content.strip()]
    if len(systems) > 1:
        dropped.append(_dropped("a newer system message replaces it", systems[:-1]))
    begun_before = tail.opening if tail.opening and alive(tail.opening) and _says(tail.opening) else None
    turns = _turns(groups, begun_before, counter)
    if len(turns) > 1 and turns[0].first.role != "user":
        dropped.append(_dropped("before the first user message", turns[0].messages))
        turns = turns[1:]
    system = systems[-1] if systems else None
    if system and budget is not None and cost(system, counter) > budget // 2:
        system = shortened(system, budget // 2, counter)
        dropped.append(_dropped("shortened: it took more than half of the budget", systems[-1:]))
    left = None if budget is None else budget - (cost(system, counter) if system else 0)
    kept = _admitted(turns, window, left, keep_after)
    if turns and not kept:
        newest, lost = _squeezed(turns[-1], left, counter)
        kept = [newest]
        dropped.extend(lost)
    messages = (*([system] if system else ()), *chain.from_iterable(turn.messages for turn in kept))
    tokens = sum(cost(m, counter) for m in messages)
    gone = [d for d in dropped if not d.reason.startswith("shortened")]
    if (older := tail.stats.message_count - len(messages) - sum(d.count for d in gone)) > 0:
        reason = "older than the window" if len(kept) == len(turns) or budget is None else "older than what fits"
        rest = max(0, tail.stats.tokens - tokens - sum(d.tokens for d in gone))
        dropped.append(Dropped(source="messages", reason=reason, count=older, tokens=rest))
    return Selection(messages, tokens, tuple(dropped))


def _says(message: Message) -> bool:
    return bool(message.content.strip() or message.payload)


def _alive(not_before: datetime | None) -> Callable[[Message], bool]:
    return lambda message: not_before is None or message.created_at >= not_before


def _dropped(reason: str, messages: Iterable[Message]) -> Dropped:
    listed = list(messages)
    return Dropped(
        source="messages",
        reason=reason,
        count=len(listed),
        tokens=sum(m.tokens for m in listed),
        ids=message_ids(listed),
    )


def _turns(groups: Sequence[Group], opening: Message | None, counter: TokenCounter) -> list[_Turn]:
    """Groups by the user message they follow. A first turn whose user message lies before the tail is not whole."""
    split: list[list[Group]] = []
    for group in groups:
        if not split or group[0].role == "user":
            split.append([])
        split[-1].append(group)
    partial = opening is not None and not (split and split[0][0][0].role == "user")
    if opening is not None and partial:
        split[:1] = [[(opening,), *(split[0] if split else ())]]
    return [
        _Turn(tuple(turn), sum(cost(m, counter) for m in chain.from_iterable(turn)), not (partial and i == 0))
        for i, turn in enumerate(split)
    ]


def _admitted(turns: Sequence[_Turn], window: Window, budget: int | None, keep_after: int | None) -> list[_Turn]:
    """The newest whole turns that window and budget admit, in order; none when the newest does not fit."""
    since = window.now - timedelta(seconds=window.size) if window.kind == "time" and window.now else None
    kept: list[_Turn] = []
    used = 0
    for turn in reversed(turns):
        in_window = (
            not kept
            or (window.kind == "turns" and len(kept) < window.size)
            or (window.kind == "time" and since is not None and turn.first.created_at >= since)
            or window.kind == "tokens"
            or (keep_after is not None and any(m.seq > keep_after for m in turn.messages))
        )
        used += turn.tokens
        if not in_window or not turn.whole or (budget is not None and used > budget):
            break
        kept.append(turn)
    return kept[::-1]


def _squeezed(turn: _Turn, budget: int | None, counter: TokenCounter) -> tuple[_Turn, list[Dropped]]:
    """The newest turn, too large or begun before the tail: its user message and the newest groups that fit."""
    first, rest = turn.groups[0], turn.groups[1:]
    if first[0].role != "user":  # nobody has asked anything yet: the newest groups are all there is
        first, rest = (), turn.groups
    room = budget
    dropped: list[Dropped] = []
    if first and room is not None and (size := cost(first[0], counter)) > room:
        short = shortened(first[0], room, counter)
        if short is None:
            raise BudgetError(
                f"the budget leaves {room} tokens for messages, too few for the newest user message "
                f"({size} tokens) even when shortened; raise max_total_tokens"
            )
        dropped.append(_dropped("shortened to fit the budget", first))
        first = (short,)
    if room is not None:
        room -= sum(cost(m, counter) for m in first)
    kept: list[Group] = []
    for group in reversed(rest):
        size = sum(cost(m, counter) for m in group)
        if room is not None and size > room:
            if not kept and (fitted := _fitted(group, room, counter)):
                dropped.append(_dropped("shortened to fit the budget", (m for m in group if m.role == "tool")))
                kept.append(fitted)
            break
        kept.append(group)
        room = None if room is None else room - size
    if lost := list(chain.from_iterable(rest[: len(rest) - len(kept)])):
        dropped.append(_dropped("the middle of the newest turn does not fit", lost))
    groups = ((first,) if first else ()) + tuple(reversed(kept))
    return _Turn(groups, sum(cost(m, counter) for m in chain.from_iterable(groups))), dropped


def _fitted(group: Group, room: int, counter: TokenCounter) -> Group | None:
    """Tool calls with their results cut to equal shares of the room, or None when that cannot be."""
    call, results = group[0], group[1:]
    left = room - cost(call, counter)
    if not results or left <= 0:
        return None
    share = left // len(results)
    cut = [r if cost(r, counter) <= share else shortened(r, share, counter) for r in results]
    return (call, *(r for r in cut if r)) if all(cut) else None


def covers(tail: Tail, window: Window) -> bool:
    """Whether a copy of a session's end holds all that `window` asks for."""
    messages = tail.messages
    if len(messages) >= tail.stats.message_count:
        return True
    limits = [window.max_tokens] if window.max_tokens else []
    if window.kind == "tokens":
        limits.append(window.size)
    shown = dropwhile(lambda m: m.role == "tool", messages)
    if limits and sum(m.tokens for m in shown if m.role != "system") >= min(limits):
        return True
    if window.kind == "time" and window.now is not None and messages:
        since = window.now - timedelta(seconds=window.size)
        first = messages[0] if messages[0].role == "user" else tail.opening or messages[0]
        return first.created_at < since and any(m.role == "user" for m in messages)
    return window.kind == "turns" and sum(m.role == "user" for m in messages) >= window.size
