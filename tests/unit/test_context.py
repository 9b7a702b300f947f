"""A context reads like a mapping, becomes chat messages any provider takes, and shows itself, trusting no text."""

from datetime import UTC, datetime
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_memory_plugins.context import Context
from llm_memory_plugins.types import Dropped, Message, Piece, ToolCall


def say(role, content="", **more):
    at = datetime(2026, 3, 1, tzinfo=UTC)
    return Message(id="m", session_id="s", role=role, content=content, created_at=at, **more)


CALLING = say("assistant", "", tool_calls=(ToolCall("a", "look", '{"q": 1}'), ToolCall("b", "wait")))
RESULTS = (say("tool", "found", tool_call_id="a"), say("tool", "done", tool_call_id="b"))
PIECES = (
    Piece(text="- old", tokens=3, source="summary"),
    Piece(text="user: hi", tokens=4, source="messages"),
    Piece(text="user: ho", tokens=5, source="messages"),
)


def test_it_reads_like_a_mapping():
    context = Context(session_id="s", summary="old", messages=(say("user", "hi"),), pieces=PIECES, tokens=12)
    assert context["summary"] == context.summary == context.get("summary", "") == "old"
    assert [message["content"] for message in context.get("messages", [])] == ["hi"]
    assert context["messages"][0].get("nothing", 7) == 7
    assert context["sources"] == {"summary": 3, "messages": 9}
    assert list(context["sources"]) == ["summary", "messages"]
    assert set(context) == {
        *("session_id", "user_id", "messages", "summary", "records", "recalled", "text", "tokens", "max_total_tokens"),
        *("pieces", "dropped", "errors", "sources"),
    }
    assert len(context) == len(list(context)) == len({**context})
    assert "summary" in context


@pytest.mark.parametrize("key", ["chat", "_also", "nothing", "__class__", "_repr_html_"])
def test_only_what_it_lists_can_be_read(key):
    context = Context(session_id="s")
    assert key not in context
    assert context.get(key) is None
    with pytest.raises(KeyError):
        context[key]


def test_chat_of_nothing():
    assert Context(session_id="s").chat() == []
    assert Context(session_id="s", recalled="old").chat() == [{"role": "system", "content": "old"}]


def test_chat_in_the_format_of_openai():
    messages = (
        say("system", "rules"),
        say("user", "one"),
        say("user", "two"),
        CALLING,
        *RESULTS,
        say("assistant", "so"),
    )
    assert Context(session_id="s", messages=messages, recalled="<memory>old</memory>", summary="old").chat() == [
        {"role": "system", "content": "rules\n\n<memory>old</memory>"},
        {"role": "user", "content": "one\n\ntwo"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"id": "a", "type": "function", "function": {"name": "look", "arguments": '{"q": 1}'}},
                {"id": "b", "type": "function", "function": {"name": "wait", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "content": "found", "tool_call_id": "a"},
        {"role": "tool", "content": "done", "tool_call_id": "b"},
        {"role": "assistant", "content": "so"},
    ]


BLOCKS = st.sampled_from([[say("user", "u")], [say("assistant", "a")], [say("system", "s")], [CALLING, *RESULTS]])


@settings(max_examples=80, deadline=None)
@given(st.lists(BLOCKS, max_size=8), st.sampled_from(["", "recalled"]))
def test_chat_is_always_valid(blocks, recalled):
    messages = tuple(message for block in blocks for message in block)
    chat = Context(session_id="s", messages=messages, recalled=recalled).chat()
    roles = [entry["role"] for entry in chat]
    assert "system" not in roles[1:]
    assert ("user", "user") not in pairwise(roles)
    said = [part for entry in chat if entry["role"] != "system" for part in entry["content"].split("\n\n") if part]
    assert said == [m.content for m in messages if m.role != "system" and m.content], "nothing lost, in order"
    system = [m.content for m in messages if m.role == "system"] + [recalled] * bool(recalled)
    assert (chat[0]["content"] if "system" in roles else "") == "\n\n".join(system)
    for at, entry in enumerate(chat):
        assert set(entry) <= {"role", "content", "tool_calls", "tool_call_id"}
        asked = [call["id"] for call in entry.get("tool_calls", [])]
        assert asked == [e["tool_call_id"] for e in chat[at + 1 : at + 1 + len(asked)]]


def test_chat_leaves_the_context_as_it_was():
    context = Context(session_id="s", messages=(say("user", "one"), say("user", "two")), recalled="old")
    assert context.chat() == context.chat()
    assert [m.content for m in context.messages] == ["one", "two"]


class Tags(HTMLParser):
    """The tags and attributes of a page, and its text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.text, self.open = [], [], "", []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.open.append(tag)
        self.attributes += [name for name, _ in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


TAGS = {"div", "b", "span", "ul", "li", "table", "tr", "th", "td", "details", "summary"}
EVIL = '</div><script>alert(1)</script>" onload="x" <img src=x onerror=\'y\'> & &amp;'


def test_html_escapes_every_text():
    page = Context(
        session_id=EVIL,
        tokens=3,
        pieces=(Piece(text=EVIL, tokens=3, source=EVIL, reason=EVIL),),
        dropped=(Dropped(source=EVIL, reason=EVIL, count=2, tokens=9),),
        errors={EVIL: EVIL},
    )._repr_html_()
    seen = Tags(page)
    assert seen.open == []
    assert {*seen.tags} <= TAGS
    assert {*seen.attributes} <= {"style", "title"}
    assert seen.text.count(EVIL) == 8, "each of them is there to be read"


def test_html_shows_the_budget_and_only_what_there_is():
    page = Context(session_id="s", tokens=12, max_total_tokens=48, pieces=PIECES)._repr_html_()
    assert "12 of 48 tokens" in page
    assert "width:6.25%" in page
    assert "width:18.75%" in page
    assert "left out" not in page
    assert "<ul>" not in page
    assert "0 tokens" in Context(session_id="s")._repr_html_()
    assert "width:25.00%" in Context(session_id="s", tokens=12, pieces=PIECES)._repr_html_()
