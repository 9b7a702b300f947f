"""The answer of a memory: what to put into the next prompt, what it costs, and why each part is there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any, ClassVar, overload

from llm_memory_plugins.records import Record
from llm_memory_plugins.rendering import section
from llm_memory_plugins.types import Dropped, Message, Piece, Readable

_COLOURS = {"messages": "#4c78a8", "summary": "#f58518", "vector_search": "#54a24b"}
_OTHER_COLOUR = "#72b7b2"


class Pieces(Sequence[Piece]):
    """Pieces that are made when somebody looks at them: who only wants the messages of a context need not wait."""

    __slots__ = ("_made", "_make")

    def __init__(self, make: Callable[[], tuple[Piece, ...]]) -> None:
        self._make = make
        self._made: tuple[Piece, ...] | None = None

    def _all(self) -> tuple[Piece, ...]:
        if self._made is None:
            self._made = self._make()
        return self._made

    @overload
    def __getitem__(self, index: int) -> Piece: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Piece]: ...
    def __getitem__(self, index: int | slice) -> Piece | Sequence[Piece]:
        return self._all()[index]

    def __len__(self) -> int:
        return len(self._all())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self._all() == tuple(other)  # pyright: ignore[reportUnknownArgumentType]

    __hash__ = None  # pyright: ignore[reportAssignmentType] - as a list has none

    def __repr__(self) -> str:
        return repr(self._all())

    def __reduce__(self) -> tuple[Callable[..., tuple[Piece, ...]], tuple[tuple[Piece, ...]]]:
        return tuple, (self._all(),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Context(Readable):
    """What to put into the next prompt. Reads like a mapping too: `context["messages"]`, `context.get("summary")`.

    Attributes:
        messages: The newest messages, verbatim: a valid conversation.
        summary: What is left of older messages, as plain text; empty when there is none.
        records: What a search found, best first.
        recalled: Every section but the messages, as rendered into `text`.
        tokens: Of `text`.
        pieces: The parts of `text`, in order, each with its source, tokens, score, reason and origin.
        dropped: What was left out, and why.
        errors: Sources that failed or answered from a slower place, by name.
    """

    session_id: str
    user_id: str = ""
    messages: tuple[Message, ...] = ()
    summary: str = ""
    records: tuple[Record, ...] = ()
    recalled: str = ""
    tokens: int = 0
    max_total_tokens: int | None = None
    pieces: Sequence[Piece] = ()
    dropped: tuple[Dropped, ...] = ()
    errors: Mapping[str, str] = field(default_factory=dict[str, str])

    _also: ClassVar[tuple[str, ...]] = ("text", "sources")

    @property
    def text(self) -> str:
        """All of it, rendered: what `tokens` counts and what never exceeds `max_total_tokens`."""
        return self.recalled + section("messages", (piece.text for piece in self.pieces if piece.source == "messages"))

    @property
    def sources(self) -> dict[str, int]:
        """Tokens by source, in the order of `text`."""
        totals: dict[str, int] = {}
        for piece in self.pieces:
            totals[piece.source] = totals.get(piece.source, 0) + piece.tokens
        return totals

    def chat(self) -> list[dict[str, Any]]:
        """The context as chat messages in OpenAI's format, ready to be followed by the next question.

        One system message, first, holds the stored system message and everything recalled; consecutive user
        messages are merged.
        """
        system = [m.content for m in self.messages if m.role == "system"]
        parts = [part for part in (*system, self.recalled) if part]
        chat: list[dict[str, Any]] = [{"role": "system", "content": "\n\n".join(parts)}] if parts else []
        for message in self.messages:
            if message.role == "system":
                continue
            if message.role == "user" and chat and chat[-1]["role"] == "user":
                chat[-1]["content"] += f"\n\n{message.content}"
                continue
            entry: dict[str, Any] = {"role": message.role, "content": message.content}
            if message.tool_calls:
                entry["tool_calls"] = [
                    {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                    for call in message.tool_calls
                ]
            if message.tool_call_id:
                entry["tool_call_id"] = message.tool_call_id
            chat.append(entry)
        return chat

    def _repr_html_(self) -> str:
        """The budget as a bar, the pieces and what was dropped as tables; every text is escaped."""
        budget = self.max_total_tokens or max(1, self.tokens)
        bar = "".join(
            f'<span title="{escape(source)}: {tokens} tokens" style="display:inline-block;height:1em;'
            f'width:{100 * tokens / budget:.2f}%;background:{_COLOURS.get(source, _OTHER_COLOUR)}"></span>'
            for source, tokens in self.sources.items()
        )
        cell = '<td style="text-align:left;vertical-align:top">'
        pieces = "".join(
            f"<tr>{cell}{escape(p.source)}</td><td>{p.tokens}</td><td>{p.score:.2f}</td>"
            f'{cell}<div style="white-space:pre-wrap">{escape(p.text)}</div></td>{cell}{escape(p.reason)}</td></tr>'
            for p in self.pieces
        )
        dropped = "".join(
            f"<tr>{cell}{escape(d.source)}</td><td>{d.tokens}</td><td>{d.count}</td>{cell}{escape(d.reason)}</td></tr>"
            for d in self.dropped
        )
        errors = "".join(f"<li>{escape(name)}: {escape(what)}</li>" for name, what in self.errors.items())
        limit = "" if self.max_total_tokens is None else f" of {self.max_total_tokens}"
        return (
            f"<div><b>Context of {escape(self.session_id)}</b>: {self.tokens}{limit} tokens"
            f'<div style="background:#ddd;font-size:0.8em;line-height:1em">{bar}</div>'
            + (f"<ul>{errors}</ul>" if errors else "")
            + "<table><tr><th>source</th><th>tokens</th><th>score</th><th>text</th><th>why</th></tr>"
            + f"{pieces}</table>"
            + (
                "<details><summary>left out</summary><table><tr><th>source</th><th>tokens</th><th>count</th>"
                f"<th>why</th></tr>{dropped}</table></details>"
                if dropped
                else ""
            )
            + "</div>"
        )
