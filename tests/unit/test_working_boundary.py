"""The door of working memory: what gets in, and what bad input gets."""

from datetime import UTC, datetime

import pytest

from llm_memory_plugins.errors import InvalidInput
from llm_memory_plugins.working_boundary import change, drafts, space, working_request
from llm_memory_plugins.working_items import WorkingItem


def checked(items, **more):
    return drafts(items, **{"ttl_seconds": 1800.0, "max_bytes": 1000, **more})


def fields(**more):
    return checked({"namespace": "n", "content": "x", **more})[2][0].fields


def test_what_is_left_out_is_made_up():
    namespace, user, (draft,) = checked({"namespace": "n", "content": {"a": 1}})
    assert (namespace, user, draft.known) == ("n", None, False)
    assert len(draft.id) == 36
    assert draft.fields == {
        "content": '{"a":1}', "importance": 0.5, "step": None, "tags": (), "status": "open", "conclusion": None,
        "ttl_seconds": 1800.0,
    }  # fmt: skip
    explicit = checked({"namespace": "n", "content": None, **dict.fromkeys(("importance", "parent_id", "tags", "key"))})
    assert explicit[2][0].fields == {**draft.fields, "content": "null"}


def test_everything_given_is_kept():
    given = {
        "importance": 1, "step": 3, "parent_id": "p", "tags": {"b", "a"}, "status": "done", "conclusion": "so",
        "ttl_seconds": 60,
    }  # fmt: skip
    assert fields(**given) == {
        **given, "content": '"x"', "importance": 1.0, "tags": ("a", "b"), "ttl_seconds": 60.0
    }  # fmt: skip
    assert fields(tags=["b", "a", "b"])["tags"] == ("b", "a")
    assert fields(step="")["step"] is None
    assert fields(conclusion="")["conclusion"] is None
    assert checked({"namespace": "n", "content": "x", "key": "k"})[2][0].id == "k"
    assert checked({"namespace": "n", "content": "x", "id": "k", "key": "k"})[2][0].id == "k"


def test_a_stored_item_goes_back_in():
    times = dict.fromkeys(("created_at", "updated_at", "used_at", "expires_at"), datetime(2026, 5, 1, tzinfo=UTC))
    held = WorkingItem(id="k", namespace="n", user_id="u", content=[1], tags=("t",), uses=3, step="s", **times)
    namespace, user, (draft,) = checked(held)
    assert (namespace, user, draft.id) == ("n", "u", "k")
    assert draft.fields["tags"] == ("t",)
    assert checked([{**held, "content": "new"}])[2][0].fields["content"] == '"new"'


NAN, INFINITY = float("nan"), float("inf")


def deep(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("field", "more"),
    [
        ("namespace", {"namespace": None}),
        ("namespace", {"namespace": ""}),
        ("namespace", {"namespace": 5}),
        ("namespace", {"namespace": "x" * 257}),
        ("namespace", {"namespace": "a\x00b"}),
        ("user_id", {"user_id": 5}),
        ("user_id", {"user_id": "\ud800"}),
        ("content", {"content": object()}),
        ("content", {"content": NAN}),
        ("content.0.a", {"content": [{"a": INFINITY}]}),
        ("content", {"content": {1: "a"}}),
        ("content", {"content": "a\x00b"}),
        ("content", {"content": "\ud800"}),
        ("content", {"content": deep(5000)}),
        ("content", {"content": "x" * 1001}),
        ("content", {"conclusion": "x" * 600, "tags": ["y" * 250, "z" * 250]}),
        ("importance", {"importance": 1.01}),
        ("importance", {"importance": -0.1}),
        ("importance", {"importance": NAN}),
        ("importance", {"importance": True}),
        ("importance", {"importance": "high"}),
        ("step", {"step": NAN}),
        ("step", {"step": True}),
        ("step", {"step": ["a"]}),
        ("step", {"step": 10**400}),
        ("step", {"step": "x" * 257}),
        ("parent_id", {"parent_id": ""}),
        ("parent_id", {"parent_id": 7}),
        ("tags", {"tags": "abc"}),
        ("tags.1", {"tags": ["a", 1]}),
        ("tags.0", {"tags": [""]}),
        ("status", {"status": "finished"}),
        ("status", {"status": []}),
        ("conclusion", {"conclusion": 5}),
        ("conclusion", {"conclusion": "a\x00"}),
        ("ttl_seconds", {"ttl_seconds": 0}),
        ("ttl_seconds", {"ttl_seconds": -1}),
        ("ttl_seconds", {"ttl_seconds": INFINITY}),
        ("ttl_seconds", {"ttl_seconds": 1e18}),
        ("ttl_seconds", {"ttl_seconds": "1h"}),
        ("key", {"key": ""}),
        ("key", {"key": 5}),
        ("id", {"key": "a", "id": "b"}),
        ("contents", {"contents": 1}),
    ],
)
def test_bad_input_is_named(field, more):
    with pytest.raises(InvalidInput) as caught:
        fields(**more)
    assert caught.value.field == field
    with pytest.raises(InvalidInput) as caught:
        checked([{"namespace": "n", "content": "fine"}, {"namespace": "n", "content": "x", **more}])
    assert caught.value.field == f"1.{field}"


def test_a_list_is_of_one_namespace_and_names_nothing_twice():
    one = {"namespace": "n", "content": "x"}
    for other in ({**one, "namespace": "m"}, {**one, "user_id": "u"}):
        with pytest.raises(InvalidInput) as caught:
            checked([one, other])
        assert caught.value.field == "1.namespace"
    with pytest.raises(InvalidInput, match="that of 0") as caught:
        checked([{**one, "key": "k"}, one, {**one, "key": "k"}])
    assert caught.value.field == "2.key"
    for no_list in ("text", b"bytes", 5, None, [], [one] * 1001):
        with pytest.raises(InvalidInput, match="item"):
            checked(no_list)
    with pytest.raises(InvalidInput, match="is missing"):
        checked({"namespace": "n"})


def test_changes():
    assert change("k", {"status": "done", "conclusion": None, "content": None}, max_bytes=1000).fields == {
        "status": "done", "conclusion": None, "content": "null",
    }  # fmt: skip
    for field, given in {
        "parent_id": None,
        "importance": None,
        "tags": None,
        "status": None,
        "ttl_seconds": None,
    }.items():
        with pytest.raises(InvalidInput, match=field):
            change("k", {field: given}, max_bytes=1000)
    with pytest.raises(InvalidInput, match="did you mean 'status'"):
        change("k", {"statsu": "done"}, max_bytes=1000)
    with pytest.raises(InvalidInput, match="key"):
        change("", {"status": "done"}, max_bytes=1000)
    with pytest.raises(InvalidInput, match="max_message_bytes"):
        change("k", {"content": "x" * 2000}, max_bytes=1000)


def test_questions():
    assert dict(working_request("n")) == {"namespace": "n", "user_id": None, "query": "", "max_tokens": None}
    asked = working_request({"namespace": "n", "query": "what?", "max_total_tokens": 50, "user_id": "u"})
    assert (asked.query, asked.max_tokens, asked.user_id) == ("what?", 50, "u")
    for field, given in (
        ("query", {"query": 5}),
        ("query", {"query": "x" * 100_001}),
        ("query", {"query": "\x00"}),
        ("max_total_tokens", {"max_tokens": 0}),
        ("max_total_tokens", {"max_tokens": 1.5}),
        ("namespace", {"namespace": None}),
        ("sesion", {"sesion": "s"}),
    ):
        with pytest.raises(InvalidInput) as caught:
            working_request({"namespace": "n", **given})
        assert caught.value.field == field
    with pytest.raises(InvalidInput, match="is missing"):
        space(None)
