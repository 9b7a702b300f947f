"""A context in the terminal: the budget as a bar, the pieces and why they are there, what was left out.

Imported only by the command line, or on purpose: `from llm_memory_plugins.display import view`. In notebooks a
context shows itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from unicodedata import category

from llm_memory_plugins.context import Context
from llm_memory_plugins.errors import MissingExtra
from llm_memory_plugins.types import Dropped, Message, Piece, SessionStats

try:
    from rich.console import Group, RenderableType
    from rich.table import Table
    from rich.text import Text
except ImportError:
    raise MissingExtra("showing a context needs rich; pip install 'llm-memory-plugins[cli]'") from None

__all__ = ["bar", "printable", "said", "sessions", "shortened", "table", "view"]

_COLOURS = {"messages": "#4c78a8", "summary": "#f58518"}
_OTHER_COLOUR = "#72b7b2"
_JOINERS = "\u200c\u200d"  # Persian, Indic scripts and emoji are misread without them
_IDS = 3


def printable(text: str) -> str:
    r"""`text` without what a terminal would obey: control and direction characters come as `\x1b`, `\u202e`.

    Line breaks stay, and a tab becomes spaces. rich's `Text` keeps markup as text but lets escape sequences through.
    """
    text = text.replace("\r\n", "\n").expandtabs(4)
    return "".join(char if _harmless(char) else char.encode("unicode_escape").decode() for char in text)


def _harmless(char: str) -> bool:
    return char.isprintable() or char == "\n" or char in _JOINERS or category(char) == "Zs"


def shortened(text: str, width: int) -> str:
    """`text` on one line of at most `width` characters, safe to print."""
    line = " ".join(printable(text).split())
    return line if len(line) <= width else line[: max(0, width - 1)] + "…"


def table(*headings: str, rows: Iterable[Iterable[str | Text]], title: str = "") -> Table:
    """A table whose cells are text, whatever they hold. Headings that begin with `#` are of right-aligned numbers."""
    built = Table(title=Text(title) if title else None, title_justify="left", box=None, pad_edge=False, expand=False)
    for heading in headings:
        numbers = heading.startswith("#")
        built.add_column(heading.removeprefix("#"), justify="right" if numbers else "left", no_wrap=numbers)
    for row in rows:
        built.add_row(*(cell if isinstance(cell, Text) else Text(printable(cell)) for cell in row))
    return built


def bar(context: Context, *, width: int = 60) -> Text:
    """What the context takes of its budget: a bar coloured by source, `tokens / max`, and a legend below.

    Args:
        context: Any context; one without a budget fills its bar.
        width: Characters of the bar.
    """
    budget = max(1, context.tokens if context.max_total_tokens is None else context.max_total_tokens)
    drawn = Text()
    legend = Text()
    spent = filled = 0
    for source, tokens in context.sources.items():
        spent += tokens
        # Ends are rounded, not lengths: otherwise the parts of a full bar could add up to more than its width.
        end = min(width, round(width * spent / budget))
        drawn.append("█" * (end - filled), style=_colour(source))
        filled = end
        legend.append("■ ", style=_colour(source)).append(f"{printable(source)} {tokens}  ")
    drawn.append("░" * (width - filled), style="dim")
    limit = "no limit" if context.max_total_tokens is None else str(context.max_total_tokens)
    drawn.append(f" {context.tokens} / {limit} tokens\n")
    return drawn.append(legend).append(f"tags {context.tokens - spent}  free {budget - context.tokens}")


def view(context: Context, *, width: int = 80) -> RenderableType:
    """Everything about a context, for `rich.print` or a `Console`.

    Args:
        context: Any context. Its text is shown as text: markup and escape sequences in it do nothing.
        width: Characters of each piece that are shown.

    Returns:
        A rich renderable.
    """
    parts: list[RenderableType] = [Text(f"Context of {printable(context.session_id)}", style="bold"), bar(context)]
    parts += [Text(f"! {printable(name)}: {printable(what)}", style="red") for name, what in context.errors.items()]
    if context.pieces:
        rows = (_piece_row(piece, width) for piece in context.pieces)
        parts += [Text(), table("source", "#tokens", "#score", "text", "why", "ids", rows=rows)]
    if context.dropped:
        rows = (_dropped_row(dropped) for dropped in context.dropped)
        parts += [Text("\nleft out", style="bold"), table("source", "#count", "#tokens", "why", "ids", rows=rows)]
    return Group(*parts)


def said(message: Message) -> Text:
    """A message under a line that tells its position, time, speaker and id."""
    who = message.role if message.name is None else f"{message.name} ({message.role})"
    calls = [f"[calls {call.name}({call.arguments})]" for call in message.tool_calls]
    content = "\n".join(part for part in (message.content, *calls) if part)
    head = f"{message.seq}  {message.created_at:%Y-%m-%d %H:%M}  {who}  {message.id}"
    return Text(shortened(head, 200), style="bold").append(f"\n{printable(content)}\n", style="not bold")


def sessions(listed: Iterable[SessionStats]) -> Table:
    """Sessions with their counts and times (UTC)."""
    rows = (
        [
            *(stats.user_id, stats.session_id),
            *map(str, (stats.message_count, stats.turn_count, stats.tokens)),
            *("" if at is None else f"{at:%Y-%m-%d %H:%M}" for at in (stats.first_at, stats.last_at)),
        ]
        for stats in listed
    )
    return table("user", "session", "#messages", "#turns", "#tokens", "first", "last", rows=rows)


def _piece_row(piece: Piece, width: int) -> list[str | Text]:
    source = Text(printable(piece.source), style=_colour(piece.source))
    return [
        *(source, str(piece.tokens), f"{piece.score:.2f}"),
        *(shortened(piece.text, width), piece.reason, _some(piece.ids)),
    ]


def _dropped_row(dropped: Dropped) -> list[str | Text]:
    source = Text(printable(dropped.source), style=_colour(dropped.source))
    return [source, str(dropped.count), str(dropped.tokens), dropped.reason, _some(dropped.ids)]


def _some(ids: tuple[str, ...]) -> str:
    more = f" +{len(ids) - _IDS}" if len(ids) > _IDS else ""
    return ", ".join(shortened(name, 36) for name in ids[:_IDS]) + more


def _colour(source: str) -> str:
    return _COLOURS.get(source, _OTHER_COLOUR)
