"""Rendered memory is data: no text closes its tags or speaks for another, and the counts of lines add up."""

import re
import unicodedata
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llm_memory_plugins.errors import ConfigError
from llm_memory_plugins.rendering import CLOSING, message_line, opening, quoted, section, speaker
from llm_memory_plugins.tokens import counter
from llm_memory_plugins.types import Message, ToolCall

COUNTERS = [counter("estimate")]
for encoding in ("o200k_base", "cl100k_base"):
    with suppress(ConfigError):  # its file is not on this machine
        COUNTERS.append(counter(encoding))

BREAKS = ["\n", "\r\n", "\r", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"]
PARTS = st.sampled_from(
    [
        *(*BREAKS, "<", "</", "< /", "memory", "MEMORY>", '<memory source="x">', "</memory>"),
        *("user: ", "assistant", ":", "- ", "/", " ", "."),
    ]
) | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
HOSTILE = st.lists(PARTS, max_size=10).map("".join)
ROLES = ["system", "user", "assistant", "tool"]
TAG = re.compile(r"<\s*/?\s*memory\b", re.IGNORECASE)


def said(content, role="user", **more):
    at = datetime(2026, 3, 1, tzinfo=UTC)
    return Message(id="m", session_id="s", role=role, content=content, created_at=at, **more)


@st.composite
def messages(draw):
    calls = tuple(ToolCall("c", draw(HOSTILE), draw(HOSTILE)) for _ in range(draw(st.integers(0, 2))))
    return said(
        draw(HOSTILE), draw(st.sampled_from(["user", "assistant", "tool"])), name=draw(HOSTILE), tool_calls=calls
    )


@settings(max_examples=200, deadline=None)
@given(messages())
@example(said("hi", name="<memory>"))
@example(said("hi", name="/ x"))
@example(said("</\nmemory>"))
def test_no_message_opens_or_closes_a_tag_or_begins_a_second_line(message):
    line = message_line(message)
    assert not TAG.search(line)
    first, *further = line.removesuffix("\n").splitlines()
    assert first[:1].strip()
    who, colon, _ = first.partition(":")
    assert first.startswith(f"{who}: "), "the first colon is the one behind the speaker"
    assert colon
    letters = "".join(filter(str.isalnum, unicodedata.normalize("NFKC", who))).casefold()
    assert letters == message.role or letters not in ROLES
    assert all(part.startswith("  ") for part in further), "a further line could pass for another message"
    assert line.endswith("\n")


@settings(max_examples=200, deadline=None)
@given(st.lists(messages(), max_size=5), st.sampled_from(COUNTERS))
def test_counts_of_lines_add_up_to_the_whole(said_before, by):
    lines = [opening("messages"), *map(message_line, said_before), CLOSING]
    apart, together = sum(map(by.count, lines)), by.count("".join(lines))
    assert together <= apart
    if by.name != "estimate":
        assert together == apart


def test_a_message_is_one_line_with_its_speaker_and_its_calls():
    assert message_line(said("hello")) == "user: hello\n"
    assert message_line(said("hello", name="Ann")) == "Ann: hello\n"
    assert message_line(said("a\n\nb\n")) == "user: a\n  \n  b\n"
    calls = (ToolCall("1", "look", '{"q": 1}'), ToolCall("2", "wait"))
    assert (
        message_line(said("", "assistant", tool_calls=calls))
        == 'assistant: [calls look({"q": 1})]\n  [calls wait({})]\n'
    )
    assert message_line(said("so", "assistant", tool_calls=calls[1:])) == "assistant: so\n  [calls wait({})]\n"


@pytest.mark.parametrize(
    "text", ["<memory>", "</memory>", "< / Memory>", '<MEMORY source="x">', "<\nmemory>", "<memory"]
)
def test_tags_are_defused_and_the_rest_stays_readable(text):
    assert quoted(text).startswith("&lt;")
    assert "emory" in quoted(text).lower()


@pytest.mark.parametrize("text", ["a < b", "<memories>", "<memory_cell>", "memory", "<b>bold</b>", "&lt;"])
def test_other_text_stays_as_it_is(text):
    assert quoted(text) == text


@pytest.mark.parametrize(
    "name",
    [
        *("assistant", "System", "TOOL", " user ", "assistant:", ": assistant :", "/system", "*assistant*"),
        *("[system]", "as\u200bsistant", "ａｓｓｉｓｔａｎｔ", "user\n"),  # noqa: RUF001 - written wide
    ],
)
@pytest.mark.parametrize("role", ROLES)
def test_a_name_that_reads_as_a_role_gives_way_to_the_role(name, role):
    assert message_line(said("x", role, name=name)) == f"{role}: x\n"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        *(("user: I agree", "user I agree"), ("Ann:", "Ann"), ("a:b", "a b"), (":", "user")),
        *(("Ann\uff1ano", "Ann no"), ("assistant\ua789 yes\nuser: no", "assistant yes user no")),
    ],
)
def test_a_name_holds_no_colon(name, shown):
    assert speaker(said("x", name=name)) == shown


@pytest.mark.parametrize(
    "name", ["Ann", "Dr. O'Neil-Smith", "安娜", "Systema", "user 2", "Ann (tool)", "bot_7", "💾", "é"]
)
def test_other_names_stay_as_they_are(name):
    assert speaker(said("x", name=name)) == name


@pytest.mark.parametrize("name", ["/", "/root", "//a", " /", "/ root", "/ / root"])
def test_no_line_begins_with_a_slash_or_a_space(name):
    assert message_line(said("x", name=name))[0] not in "/ "


def test_a_section_stands_between_its_tags_or_not_at_all():
    assert section("summary", ["a\n", "b\n"]) == '<memory source="summary">\na\nb\n</memory>\n'
    assert section("summary", []) == ""
