"""What a context looks like, in the terminal and in a notebook: texts are shown, never obeyed."""

from __future__ import annotations

import io
import sys
from datetime import UTC, datetime

import pytest
from rich.console import Console, RenderableType

from llm_memory_plugins.context import Context
from llm_memory_plugins.display import bar, printable, said, shortened, view
from llm_memory_plugins.errors import MissingExtra
from llm_memory_plugins.types import Dropped, Message, Piece

HOSTILE = "[red]x[/red] \x1b[31mred\x1b[0m \x9b2J \x07 \u202eabc <script>alert(1)</script>"


def drawn(renderable: RenderableType, *, colour: bool = False) -> str:
    console = Console(
        file=io.StringIO(), width=200, force_terminal=colour, color_system="truecolor" if colour else None
    )
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def context(text: str = "hello", *, budget: int | None = 100, tokens: int = 60) -> Context:
    pieces = (
        Piece(text=text, tokens=20, source="summary", score=0.5, reason="by weight", ids=tuple("abcde")),
        Piece(text=text, tokens=30, source="messages", reason="newest", ids=("m1",)),
    )
    return Context(
        session_id=text[:200],
        tokens=tokens,
        max_total_tokens=budget,
        pieces=pieces,
        dropped=(Dropped(source="messages", reason="older than what fits", count=7, tokens=99, ids=(text,)),),
        errors={"messages": f"slow {text}"},
    )


def test_view_tells_what_is_in_what_is_out_and_what_failed() -> None:
    shown = drawn(view(context()))
    assert "60 / 100 tokens" in shown
    assert "summary 20" in shown
    assert "tags 10  free 40" in shown
    assert "by weight" in shown
    assert "a, b, c +2" in shown
    assert "older than what fits" in shown
    assert "! messages: slow hello" in shown


def test_markup_and_control_sequences_are_shown_as_text() -> None:
    shown = drawn(view(context(HOSTILE)))
    assert "[red]x[/red]" in shown
    assert r"\x1b[31mred" in shown
    assert not {"\x1b", "\x9b", "\x07", "\u202e"} & set(shown)


def test_a_colour_terminal_gets_only_our_own_sequences() -> None:
    shown = drawn(view(context("\x1b[35mpurple")), colour=True)
    assert "\x1b[35m" not in shown
    assert "\x1b[38;2;76;120;168m" in shown  # the bar is coloured
    assert r"\x1b[35mpurple" in shown


@pytest.mark.parametrize(
    ("budget", "tokens", "full"), [(100, 60, 6), (50, 50, 10), (None, 50, 10), (1, 0, 10), (10**9, 50, 0)]
)
def test_bar_has_its_width_whatever_the_budget(budget: int | None, tokens: int, full: int) -> None:
    line = bar(context(budget=budget, tokens=tokens), width=10).plain.split(" ")[0]
    assert len(line) == 10
    assert abs(line.count("█") - full) <= 1


def test_an_empty_context_can_be_shown() -> None:
    assert "0 / no limit" in drawn(view(Context(session_id="s")))


def test_printable_keeps_writing_and_escapes_the_rest() -> None:
    assert printable("a\r\nb\tc") == "a\nb   c"
    assert printable("الف\u200cب 👩\u200d🍳 日\u3000本\u00a0é") == "الف\u200cب 👩\u200d🍳 日\u3000本\u00a0é"
    assert printable("a\rb\x00\x7f\u2066\ud800") == r"a\rb\x00\x7f\u2066\ud800"


def test_shortened_is_one_line_of_the_width() -> None:
    assert shortened("a\n b  c", 5) == "a b c"
    assert shortened("abcdef", 5) == "abcd…"


def test_a_message_names_position_time_and_speaker() -> None:
    at = datetime(2026, 2, 3, 8, 12, tzinfo=UTC)
    message = Message(id="m1", session_id="s", role="user", name="No\x1bra", content=HOSTILE, created_at=at, seq=4)
    shown = drawn(said(message))
    assert shown.startswith(r"4 2026-02-03 08:12 No\x1bra (user) m1")
    assert "\x1b" not in shown


def test_without_rich_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rich.console", None)
    monkeypatch.delitem(sys.modules, "llm_memory_plugins.display")
    with pytest.raises(MissingExtra, match=r"pip install 'llm-memory-plugins\[cli\]'"):
        __import__("llm_memory_plugins.display")


def test_the_notebook_form_escapes_html() -> None:
    html = context(HOSTILE)._repr_html_()
    assert "<script>" not in html
    assert html.count("&lt;script&gt;") >= 3
