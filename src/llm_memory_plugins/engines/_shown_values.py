"""Values for a prompt: those written last, as many as fit, in the order of their keys."""

from __future__ import annotations

from collections.abc import Sequence

from llm_memory_plugins.context import Context
from llm_memory_plugins.key_values import StoredValue
from llm_memory_plugins.ports import TokenCounter
from llm_memory_plugins.rendering import CLOSING, opening, section, value_line
from llm_memory_plugins.types import Dropped, Piece
from llm_memory_plugins.values import shown

SOURCE = "key_value"


def context(
    user_id: str, values: Sequence[StoredValue], *, budget: int | None, counter: TokenCounter, problem: str | None
) -> Context:
    """A context of some values, never above the budget.

    Args:
        user_id: Whose they are.
        values: Those that come first are kept first.
        budget: Tokens at most.
        counter: Counts them.
        problem: What kept others from being among them.
    """
    tags = counter.count(opening(SOURCE)) + counter.count(CLOSING)
    room = None if budget is None else budget - tags
    kept: list[tuple[str, Piece]] = []
    left_out: list[str] = []
    too_many = 0
    for value in values:
        line = value_line(value.key, shown(value.value))
        tokens = counter.count(line)
        if room is not None and tokens > room:
            left_out.append(value.key)
            too_many += tokens
            continue
        room = None if room is None else room - tokens
        piece = Piece(text=line, tokens=tokens, source=SOURCE, reason="among the last written", ids=(value.key,))
        kept.append((value.key, piece))
    pieces = tuple(piece for _, piece in sorted(kept, key=lambda each: each[0]))
    reason = "does not fit into the budget"
    return Context(
        session_id="",
        user_id=user_id,
        recalled=section(SOURCE, (piece.text for piece in pieces)),
        tokens=sum(piece.tokens for piece in pieces) + (tags if pieces else 0),
        max_total_tokens=budget,
        pieces=pieces,
        dropped=(Dropped(source=SOURCE, reason=reason, count=len(left_out), tokens=too_many, ids=tuple(left_out)),)
        if left_out
        else (),
        errors={SOURCE: problem} if problem else {},
    )
