"""The door of vector memory: what is refused, by which name, and what comes in as what."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from unittest.mock import ANY
from uuid import UUID

import pytest

from llm_memory_plugins.errors import InvalidInput
from llm_memory_plugins.filters import Comparison, parse
from llm_memory_plugins.record_boundary import VectorRequest, changed, records, vector_request, where
from llm_memory_plugins.records import Passage, Record, Where
from llm_memory_plugins.types import ContextRequest

NOW = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
FULL = {
    "id": "r",
    "content": "Ann likes tea.",
    "user_id": "u",
    "session_id": "s",
    "source": "notes.md",
    "role": "user",
    "name": "Ann",
    "created_at": NOW - timedelta(days=1),
    "metadata": {"tags": ("a", b"x"), "n": {"deep": NOW}},
    "importance": 0.5,
}


def check(items, max_bytes=1000):
    return records(items, now=NOW, max_bytes=max_bytes)


def one(item, **more):
    ((_, record, _),) = check(item, **more)
    return record


def refused(call, *args, **more):
    with pytest.raises(InvalidInput) as error:
        call(*args, **more)
    assert str(error.value).startswith(f"{error.value.field}: ")
    return error.value


def test_a_text_alone_is_a_record():
    ((user, record, named),) = check("Ann likes tea.")
    assert (user, named) == (None, False)
    assert UUID(record.id).version == 7
    assert record == Record(id=record.id, content="Ann likes tea.", created_at=NOW)
    assert one({"text": "Ann likes tea."}).content == "Ann likes tea."
    assert one("a").id < one("a").id


def test_every_field():
    ((user, record, named),) = check(FULL)
    assert (user, named) == ("u", True)
    assert {**record, "user_id": "u"} == {**record, **FULL}
    assert check({**FULL, "user_id": ""})[0][0] == ""


def test_none_is_not_given():
    bare, none = one("x"), one({**dict.fromkeys(FULL), "content": "x"})
    assert replace(none, id=bare.id) == bare
    assert one({"content": "x", "name": "", "id": bare.id}) == bare


def test_a_record_comes_in_again_as_it_was():
    record = one(FULL)
    found = replace(
        record,
        user_id="u",
        revision=3,
        score=0.9,
        similarity=0.8,
        why={"dense": 0.9},
        passage=Passage(1, 4, 9, "likes"),
    )
    assert check(found) == check({**found}) == check(FULL) == [("u", record, True)]
    assert one({**found, "content": "Ann likes coffee."}) == replace(record, content="Ann likes coffee.")
    assert {**one({**found, "id": None, "source": None})} == {**record, "id": ANY, "source": None}
    # Before it is stored a record is nobody's in particular.
    assert check(record) == [(None, record, True)]


def test_the_id_of_a_text_with_a_source_is_made_from_both():
    lines = [{"content": text, "source": "a.txt", "session_id": "s"} for text in ("yes", "no", "yes")]
    first, again = check(lines), check(lines)
    ids = [record.id for _, record, _ in first]
    assert first == again
    assert len(set(ids)) == 3
    assert all(named for _, _, named in first)
    assert [record.id for _, record, _ in check([*lines, {**lines[0], "content": "more"}])][:3] == ids
    assert one(lines[0]).id == ids[0]
    for change in ({"content": "Yes"}, {"source": "b.txt"}, {"session_id": "t"}, {"session_id": None}):
        assert one({**lines[0], **change}).id not in ids
    # Each user's are counted on their own, and what else is known of the text does not matter.
    others = check([*lines, *({**line, "user_id": "u", "metadata": {"n": 1}} for line in lines)])
    assert [record.id for _, record, _ in others] == ids * 2


def test_what_the_caller_changes_later_is_not_changed_here():
    metadata = {"tags": ["a"]}
    record = one({"content": "x", "metadata": metadata})
    metadata["tags"].append("b")
    assert record.metadata == {"tags": ["a"]}


@pytest.mark.parametrize(
    ("change", "field", "says"),
    [
        ({"content": ""}, "content", "blank"),
        ({"content": " \n\t\u00a0"}, "content", "blank"),
        ({"content": None}, "content", "missing"),
        ({"content": 7}, "content", "int"),
        ({"content": b"x"}, "content", "bytes"),
        ({"content": "nul\x00"}, "content", "NUL"),
        ({"content": "\ud83d"}, "content", "surrogate"),
        ({"content": "é" * 501}, "content", "1,002 bytes; max_message_bytes is 1,000"),
        ({"content": "x" * 900, "metadata": {"a": "x" * 100}}, "content", "metadata"),
        ({"text": "another"}, "text", "give one of them"),
        ({"content": None, "text": " "}, "text", "blank"),
        ({"content": None, "text": 7}, "text", "int"),
        ({"id": ""}, "id", "empty"),
        ({"id": 7}, "id", "int"),
        ({"id": "i" * 257}, "id", "256"),
        ({"user_id": 7}, "user_id", "int"),
        ({"user_id": "\x00"}, "user_id", "NUL"),
        ({"session_id": ""}, "session_id", "empty"),
        ({"session_id": ["s"]}, "session_id", "list"),
        ({"source": ""}, "source", "empty"),
        ({"source": "s" * 2001}, "source", "2,000"),
        ({"source": 7}, "source", "int"),
        ({"source": "\x00"}, "source", "NUL"),
        ({"role": "human"}, "role", "system, user, assistant, tool"),
        ({"role": ["user"]}, "role", "must be one of"),
        ({"name": "n" * 257}, "name", "256"),
        ({"speaker": "Ann"}, "speaker", "known are"),
        ({"created_at": "yesterday"}, "created_at", "ISO 8601"),
        ({"created_at": 0}, "created_at", "int"),
        ({"metadata": [1]}, "metadata", "mapping"),
        ({"metadata": []}, "metadata", "mapping"),
        ({"metadata": {"a": float("nan")}}, "metadata.a", "NaN"),
        ({"metadata": {1: 2}}, "metadata", "keys must be text"),
        ({"metadata": {"a": object()}}, "metadata.a", "object"),
        *(({"importance": bad}, "importance", "from 0 to 1") for bad in (-0.1, 1.1, "1", True, float("nan"), 10**400)),
        ({"contnet": "x"}, "contnet", "did you mean 'content'"),
        ({"embedding": [0.1]}, "embedding", "known are"),
    ],
)  # fmt: skip
def test_hostile_and_broken_input_is_refused_by_name(change, field, says):
    error = refused(check, {"content": "hello", **change})
    assert error.field == field
    assert says in str(error)


def test_lists_name_the_position_and_are_taken_whole():
    assert [record.content for _, record, _ in check(["a", {"content": "b"}, one("c")])] == ["a", "b", "c"]
    assert check([]) == []
    assert refused(check, ["a", {"content": "b", "metadata": {"n": float("nan")}}]).field == "1.metadata.n"
    assert refused(check, ["a", ""]).field == "1.content"
    assert refused(check, ["a", 7]).field == "1.record"
    for item in (7, None, {"a"}, b"x", iter(["a"])):
        assert refused(check, item).field == "record"


def test_importance_and_times_take_the_usual_forms():
    assert [one({"content": "x", "importance": n}).importance for n in (0, 1, 0.25, None)] == [0.0, 1.0, 0.25, 0.0]
    for form in ("2026-03-01T09:30:00Z", "2026-03-01T15:15:00+05:45", NOW.astimezone(timezone(timedelta(hours=-8)))):
        assert one({"content": "x", "created_at": form}).created_at == NOW


def test_a_change_leaves_the_rest():
    held = replace(one(FULL), user_id="u", revision=4)
    assert changed(held, {}, max_bytes=1000) == held
    assert changed(held, {"content": "new"}, max_bytes=1000) == replace(held, content="new")
    assert changed(held, {"text": "new"}, max_bytes=1000) == replace(held, content="new")
    assert changed(held, {"metadata": {"a": 1}, "importance": 1}, max_bytes=1000) == replace(
        held, metadata={"a": 1}, importance=1.0
    )
    none = dict.fromkeys(("session_id", "source", "role", "name", "metadata", "importance", "created_at"))
    assert changed(held, none, max_bytes=1000) == Record(
        id="r", content=held.content, created_at=held.created_at, user_id="u", revision=4
    )


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"content": " "}, "content"),
        ({"content": None}, "content"),
        ({"text": "a", "content": "b"}, "text"),
        ({"id": "other"}, "id"),
        ({"user_id": "other"}, "user_id"),
        ({"revision": 9}, "revision"),
        ({"metdata": {}}, "metdata"),
        ({"metadata": {"a": "x" * 1000}}, "content"),
        ({"importance": 2}, "importance"),
    ],
)
def test_a_broken_change_is_refused_by_name(changes, field):
    assert refused(changed, one(FULL), changes, max_bytes=1000).field == field


def test_a_question():
    assert vector_request("tea?") == vector_request({"query": "tea?"}) == VectorRequest(query="tea?")
    asked = {
        "query": "tea?",
        "user_id": "u",
        "session_id": "s",
        "source": "notes.md",
        "since": "2026-03-01",
        "until": NOW,
        "filter": {"year": {"$gte": 2020}},
        "max_results": 7,
        "similarity_threshold": -1,
        "max_tokens": 900,
    }
    request = vector_request(asked)
    assert request == vector_request("tea?", **{key: value for key, value in asked.items() if key != "query"})
    assert request == vector_request(request)
    assert request == vector_request({**asked, "max_tokens": None, "max_total_tokens": 900})
    assert request.filter == Comparison(("year",), "gte", 2020)
    assert (request.similarity_threshold, request.max_tokens, request.user_id) == (-1.0, 900, "u")
    assert request.where == Where(
        session_id="s", source="notes.md", since=datetime(2026, 3, 1, tzinfo=UTC), until=NOW, filter=request.filter
    )
    assert vector_request(request, max_results=3) == replace(request, max_results=3)
    assert vector_request(ContextRequest(session_id="s", query="tea?", max_total_tokens=9)) == VectorRequest(
        query="tea?", session_id="s", max_tokens=9
    )


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        *(({"query": bad}, "query") for bad in ("", " \n", None, 7, "\x00", "\ud800", "x" * 100_001)),
        ({}, "query"),
        ("", "query"),
        *(({"query": "q", "max_results": bad}, "max_results") for bad in (0, -1, 1001, 1.5, True, "5")),
        *(({"query": "q", "max_tokens": bad}, "max_total_tokens") for bad in (0, -1, 1.5, True, "9", 2**31)),
        *(({"query": "q", "similarity_threshold": bad}, "similarity_threshold") for bad in (1.1, -2, True, "x")),
        *(({"query": "q", "filter": bad}, "filter") for bad in (7, "x", [])),
        ({"query": "q", "filter": {"year": {"$gtt": 1}}}, "filter.year.$gtt"),
        ({"query": "q", "since": "soon"}, "since"),
        ({"query": "q", "until": date(2026, 3, 1)}, "until"),
        ({"query": "q", "source": ""}, "source"),
        ({"query": "q", "session_id": ""}, "session_id"),
        ({"query": "q", "user_id": 7}, "user_id"),
        ({"qeury": "q"}, "qeury"),
        ({"query": "q", "ids": ["a"]}, "ids"),
        *((bad, "search") for bad in (7, None, ["q"], b"q")),
    ],
)  # fmt: skip
def test_a_broken_question_is_refused_by_name(asked, field):
    assert refused(vector_request, asked).field == field


def test_an_unknown_word_of_a_question_is_guessed_at():
    assert "did you mean 'max_results'" in str(refused(vector_request, "q", max_result=3))


def test_which_records_are_meant():
    assert where({}).everything
    assert where(dict.fromkeys(("ids", "session_id", "source", "since", "until", "filter"))).everything
    assert where({"filter": {}}).everything
    assert where({"filter": parse({})}).everything
    assert where({"ids": ["b", "a"]}) == Where(ids=("b", "a"))
    assert where({"ids": []}) == Where(ids=())
    assert not where({"ids": ()}).everything
    assert where({"since": NOW, "filter": {"a": 1}}) == Where(since=NOW, filter=parse({"a": 1}))


@pytest.mark.parametrize(
    ("given", "field"),
    [
        *(({"ids": bad}, "ids") for bad in ("abc", 7, {"a": 1}, b"x")),
        ({"ids": ["a", ""]}, "ids.1"),
        ({"ids": ["a", None]}, "ids.1"),
        ({"ids": ["a" * 257]}, "ids.0"),
        ({"filter": {"a": {"b": [1]}}}, "filter.a.b"),
        ({"since": 7}, "since"),
        ({"session": "s"}, "session"),
        ({"query": "q"}, "query"),
    ],
)
def test_a_broken_condition_is_refused_by_name(given, field):
    assert refused(where, given).field == field
