"""The door: what is refused, by which name, and what comes in as what."""

from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest

from llm_memory_plugins.boundary import context_request, message, messages, moment, nearest, session_ref
from llm_memory_plugins.errors import InvalidInput
from llm_memory_plugins.types import ContextRequest, Message, SessionRef, ToolCall

NOW = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
HELLO = {"session_id": "s", "role": "user", "content": "hello"}
CALL = {"id": "c", "name": "look", "arguments": "{}"}
CALLING = {"role": "assistant"}


def check(item, max_bytes=1000):
    return message(item, now=NOW, max_bytes=max_bytes)


def refused(item, **more):
    with pytest.raises(InvalidInput) as error:
        check({**HELLO, **item} if isinstance(item, dict) else item, **more)
    assert str(error.value).startswith(f"{error.value.field}: ")
    return error.value


def test_a_message_and_what_it_is_given():
    first, second = check(HELLO), check(HELLO)
    assert (first.session_id, first.role, first.content, first.created_at) == ("s", "user", "hello", NOW)
    assert (first.user_id, first.name, first.tool_calls, dict(first.metadata), first.payload) == (
        None,
        None,
        (),
        {},
        None,
    )
    assert UUID(first.id).version == 7
    assert first.id < second.id


def test_a_message_comes_in_again_as_it_was_except_for_what_stores_give():
    item = check({**HELLO, "role": "assistant", "tool_calls": [CALL], "metadata": {"n": (1, b"x")}, "name": "Bo"})
    assert check(item) == item
    stored = {**item, "tokens": 7, "tokenizer": "x", "seq": 3}
    assert check(stored) == item


@pytest.mark.parametrize(
    ("change", "field", "says"),
    [
        ({"content": "nul\x00"}, "content", "NUL"),
        ({"content": "\ud83d"}, "content", "surrogate"),
        ({"content": None}, "content", "NoneType"),
        ({"content": [{"type": "text"}]}, "content", "payload"),
        ({"content": "x" * 1001}, "content", "1,001 bytes; max_message_bytes is 1,000"),
        ({"content": "é" * 501}, "content", "1,002 bytes"),
        ({"role": "human"}, "role", "system, user, assistant, tool"),
        ({"role": None}, "role", "must be one of"),
        ({"role": ["user"]}, "role", "must be one of"),
        ({"session_id": None}, "session_id", "missing"),
        ({"session_id": ""}, "session_id", "empty"),
        ({"session_id": 7}, "session_id", "int"),
        ({"session_id": "s" * 257}, "session_id", "257 characters"),
        ({"session_id": "a\x00b"}, "session_id", "NUL"),
        ({"user_id": "\ud800"}, "user_id", "surrogate"),
        ({"user_id": 5}, "user_id", "int"),
        ({"user_id": "u" * 257}, "user_id", "256"),
        ({"id": ""}, "id", "empty"),
        ({"id": "i" * 257}, "id", "256"),
        ({"id": "\x00"}, "id", "NUL"),
        ({"name": "n" * 257}, "name", "256"),
        ({"name": "\x00"}, "name", "NUL"),
        ({"created_at": "yesterday"}, "created_at", "ISO 8601"),
        ({"created_at": 1_700_000_000}, "created_at", "int"),
        ({"created_at": 0}, "created_at", "int"),
        ({"created_at": ""}, "created_at", "ISO 8601"),
        ({"metadata": {"a": float("nan")}}, "metadata.a", "NaN"),
        ({"metadata": {"a": float("inf")}}, "metadata.a", "finite"),
        ({"metadata": {1: 2}}, "metadata", "keys must be text"),
        ({"metadata": {"a": "\x00"}}, "metadata.a", "NUL"),
        ({"metadata": {"a": object()}}, "metadata.a", "object"),
        ({"metadata": [1]}, "metadata", "mapping"),
        ({"metadata": {"a": "x" * 1000}}, "content", "max_message_bytes"),
        ({"payload": "text"}, "payload", "mapping"),
        ({"payload": {"a": {"b": b"x" * 1000}}}, "content", "max_message_bytes"),
        ({"payload": {"a": ["\udc00"]}}, "payload.a.0", "surrogate"),
        ({"role": "tool"}, "tool_call_id", "missing"),
        ({"role": "tool", "tool_call_id": ""}, "tool_call_id", "missing"),
        ({"role": "tool", "tool_call_id": 4}, "tool_call_id", "int"),
        ({"tool_calls": [CALL]}, "tool_calls", "assistant"),
        (CALLING | {"tool_calls": "look"}, "tool_calls", "list"),
        (CALLING | {"tool_calls": CALL}, "tool_calls", "list"),
        *((CALLING | {"tool_calls": no_list}, "tool_calls", "list") for no_list in (0, False, "", b"", {})),
        (CALLING | {"tool_calls": [CALL, {**CALL, "id": "d"}, CALL]}, "tool_calls.2.id", "tool_calls.0"),
        (CALLING | {"tool_calls": [CALL, {"name": "x"}]}, "tool_calls.1.id", "NoneType"),
        (CALLING | {"tool_calls": [{**CALL, "name": ""}]}, "tool_calls.0.name", "empty"),
        (CALLING | {"tool_calls": [{**CALL, "arguments": "\x00"}]}, "tool_calls.0.arguments", "NUL"),
        (CALLING | {"tool_calls": [{**CALL, "arguments": {"a": float("nan")}}]}, "tool_calls.0.arguments.a", "NaN"),
        ({"contnet": "x"}, "contnet", "did you mean 'content'"),
        ({"zzz": "x"}, "zzz", "known are"),
    ],
)  # fmt: skip
def test_hostile_and_broken_input_is_refused_by_name(change, field, says):
    error = refused(change)
    assert error.field == field
    assert says in str(error)


@pytest.mark.parametrize("missing", ["session_id", "role", "content"])
def test_what_must_be_there(missing):
    with pytest.raises(InvalidInput) as error:
        check({key: value for key, value in HELLO.items() if key != missing})
    assert error.value.field == missing


def test_metadata_5000_levels_deep_is_refused():
    deep = {}
    for _ in range(5000):
        deep = {"a": deep}
    assert refused({"metadata": deep}).field == "metadata"


def test_the_size_limit_is_in_bytes_whatever_the_part():
    emoji = "🦜" * 300  # 300 characters, 1,200 bytes
    assert refused({"content": emoji}).field == "content"
    assert "max_message_bytes" in str(refused({"metadata": {"a": emoji}}))


@pytest.mark.parametrize("call", ["look", 7, {**CALL, "argumnets": "{}"}])
def test_a_broken_tool_call_is_named_by_its_position(call):
    assert refused(CALLING | {"tool_calls": [CALL, call]}).field.startswith("tool_calls.1")


def test_none_is_not_given():
    item = check({**HELLO, "created_at": None, "tool_calls": None})
    assert (item.created_at, item.tool_calls) == (NOW, ())
    assert check({**HELLO, "tool_calls": []}).tool_calls == ()


def test_tool_calls_come_as_mappings_or_values_with_text_or_structure_for_arguments():
    calls = [
        ToolCall("1", "look", "{}"),
        {"id": "2", "name": "look"},
        {"id": "3", "name": "look", "arguments": {"q": "é"}},
    ]
    item = check({**HELLO, "role": "assistant", "content": "", "tool_calls": calls})
    assert [(c.id, c.arguments) for c in item.tool_calls] == [("1", "{}"), ("2", "{}"), ("3", '{"q":"é"}')]


@pytest.mark.parametrize("odd", [":", "{}", "*", "a.b", "ann@example.org", " ", "\n", "…", "x" * 256, "💾" * 256])
def test_an_id_may_hold_any_character(odd):
    item = check({**HELLO, "session_id": odd, "user_id": odd, "id": odd})
    assert (item.session_id, item.user_id, item.id) == (odd, odd, odd)


def test_no_user_is_not_the_empty_user():
    assert session_ref("s") == SessionRef("s", None)
    assert session_ref("s", "") == SessionRef("s", "")
    assert check({**HELLO, "user_id": ""}).user_id == ""
    assert check({**HELLO, "name": ""}).name is None


@pytest.mark.parametrize(
    "form",
    [
        *("2026-03-01T09:30:00Z", "2026-03-01T09:30:00", "2026-03-01 09:30", "20260301T093000Z"),
        *("2026-03-01T15:15:00+05:45", NOW, NOW.replace(tzinfo=None)),
        NOW.astimezone(timezone(timedelta(hours=-8))),
    ],
)
def test_forms_of_a_time(form):
    at = check({**HELLO, "created_at": form}).created_at
    assert at == NOW
    assert at.tzinfo is UTC


def test_times_at_the_ends_of_the_calendar():
    east, west = timezone(timedelta(hours=1)), timezone(timedelta(hours=-1))
    for bad in (datetime.min.replace(tzinfo=east), datetime.max.replace(tzinfo=west)):
        with pytest.raises(InvalidInput, match="created_at: is too near"):
            moment(bad, "created_at")
    assert moment(datetime.min, "created_at").year == 1


def test_what_the_caller_changes_later_is_not_changed_here():
    metadata = {"tags": ["a"]}
    item = check({**HELLO, "metadata": metadata})
    metadata["tags"].append("b")
    assert item.metadata == {"tags": ["a"]}


def test_lists_name_the_position_and_are_taken_whole():
    items = messages([HELLO, check(HELLO)], now=NOW, max_bytes=1000)
    assert [m.content for m in items] == ["hello", "hello"]
    assert len(messages(HELLO, now=NOW, max_bytes=1000)) == 1
    assert len(messages(items[0], now=NOW, max_bytes=1000)) == 1
    assert messages([], now=NOW, max_bytes=1000) == []
    with pytest.raises(InvalidInput, match=r"^2\.metadata\.a: is not a finite") as error:
        messages([HELLO, HELLO, {**HELLO, "metadata": {"a": float("nan")}}], now=NOW, max_bytes=1000)
    assert error.value.field == "2.metadata.a"


@pytest.mark.parametrize("item", ["text", 7, None, {"a"}, iter([HELLO])])
def test_only_a_mapping_or_a_list_is_one_message_or_many(item):
    with pytest.raises(InvalidInput) as error:
        messages(item, now=NOW, max_bytes=1000)
    assert error.value.field == "message"


@pytest.mark.parametrize("item", ["text", 7, None, ["role"], b"x"])
def test_an_item_that_is_no_mapping_is_refused_by_its_position(item):
    with pytest.raises(InvalidInput) as error:
        messages([HELLO, item], now=NOW, max_bytes=1000)
    assert error.value.field.startswith("1.")


def test_a_context_request():
    assert context_request("s") == ContextRequest(session_id="s")
    asked = {"session_id": "s", "user_id": "u", "query": "why?", "max_total_tokens": 9}
    assert context_request(asked) == context_request(ContextRequest(**asked)) == ContextRequest(**asked)
    assert context_request({"session_id": "s", "max_tokens": 7}).max_total_tokens == 7
    assert context_request({"session_id": "s", "query": None}).query == ""


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        *(({"session_id": "s", "max_total_tokens": n}, "max_total_tokens") for n in (0, -1, 1.5, True, "9")),
        *((({"session_id": bad}, "session_id")) for bad in ("", None, 7, "\x00")),
        *(({"session_id": "s", "query": bad}, "query") for bad in (7, 0, False, [], "\x00", "\ud800")),
        *((("", "session_id"), ({}, "session_id"), ({"session_id": "s", "qeury": "x"}, "qeury"))),
        *((bad, "context request") for bad in (7, None, ["s"], b"s")),
    ],
)  # fmt: skip
def test_a_broken_context_request_is_refused_by_name(asked, field):
    with pytest.raises(InvalidInput) as error:
        context_request(asked)
    assert error.value.field == field


def test_nearest():
    assert nearest("sesion_id", ["session_id", "user_id"]) == "did you mean 'session_id'?"
    assert nearest("zzz", ["b", "a"]) == "known are a, b"
    assert isinstance(check(HELLO), Message)


@pytest.mark.parametrize("content", ["", " \n\t"])
def test_a_user_message_has_to_say_something(content):
    assert refused({"role": "user", "content": content}).field == "content"
