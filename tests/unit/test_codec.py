"""Tagged JSON: every value comes back as it was, or is refused by name before it is stored."""

import json
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, StrEnum
from types import MappingProxyType
from uuid import UUID

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llm_memory_plugins import boundary
from llm_memory_plugins.codec import MAX_DEPTH, dumps, extra_fields, extra_json, loads, message_to_line
from llm_memory_plugins.errors import InvalidInput
from llm_memory_plugins.types import Message, ToolCall

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=12)
KEYS = TEXT | st.sampled_from(["$bytes", "$tuple", "$set", "$object", "$date", "$", "$unknown", "a.b"])
ZONES = st.sampled_from([None, UTC, timezone(timedelta(hours=5, minutes=45)), timezone(-timedelta(seconds=30))])
PLAIN = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), TEXT),
    *(st.binary(max_size=12), st.datetimes(timezones=ZONES), st.dates(), st.uuids()),
    st.decimals(allow_nan=False, allow_infinity=False),
)
VALUES = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.sets(PLAIN | st.tuples(PLAIN, PLAIN), max_size=4)
        | st.dictionaries(KEYS, inner, max_size=3)
    ),
    max_leaves=12,
)
MESSAGES = st.builds(
    Message,
    id=TEXT.filter(bool),
    session_id=TEXT.filter(bool),
    user_id=TEXT,
    role=st.just("assistant"),
    content=TEXT,
    created_at=st.datetimes(timezones=st.just(UTC)),
    name=st.none() | TEXT.filter(bool),
    tool_calls=st.lists(
        st.builds(ToolCall, TEXT.filter(bool), TEXT.filter(bool), TEXT), max_size=2, unique_by=lambda call: call.id
    ).map(tuple),
    tool_call_id=st.none() | TEXT.filter(bool),
    metadata=st.dictionaries(KEYS, VALUES, max_size=3),
    payload=st.none() | st.dictionaries(KEYS, VALUES, min_size=1, max_size=3),
)


def same(left, right):
    """Equal and of the same types all the way down: `1 == True == 1.0` is not enough."""
    if type(left) is not type(right) or left != right:
        return False
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return all(map(same, left, right))
    return repr(left) == repr(right) if isinstance(left, float | Decimal) else True


@settings(max_examples=250, deadline=None)
@given(VALUES)
@example({"$bytes": "aGk="})
@example({"$object": {"$object": {"$set": [1]}}})
@example([{"$tuple": [{"$date": "2026-03-01"}]}, ({"$nothing": b"\x00\xff"},)])
@example({"$bytes": "aGk=", "other": b"hi"})
@example({("a", 1), ('"$tuple"', 2)})
@example(Decimal("-1e999"))
def test_what_goes_in_comes_out(value):
    text = dumps(value)
    assert "\n" not in text
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert same(loads(text), value)
    assert dumps(loads(text)) == text, "every value has exactly one form"


def test_other_mappings_and_kinds_of_text_come_back_as_the_plain_ones():
    class Colour(StrEnum):
        RED = "red"

    assert same(loads(dumps(MappingProxyType({"a": Colour.RED}))), {"a": "red"})
    assert loads(dumps(frozenset({1, 2}))) == {1, 2}


def test_text_that_is_an_enum_is_stored_as_its_value():
    class Colour(str, Enum):  # noqa: UP042 - the older spelling, whose `str()` is "Colour.RED"
        RED = "red"

    assert loads(dumps(Colour.RED)) == "red"


@pytest.mark.parametrize(
    "value", [{frozenset({1})}, {(frozenset({1}), 2)}, {("a", frozenset())}], ids=["set", "in a tuple", "empty"]
)
def test_a_set_of_sets_is_read_again_or_refused(value):
    with suppress(InvalidInput):
        assert loads(dumps(value)) == value


def nested(depth):
    value = "deep"
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "field", "says"),
    [
        ({"price": float("nan")}, "metadata.price", "NaN"),
        ({"a": [1, float("inf")]}, "metadata.a.1", "finite"),
        ({"a": {"b": (float("-inf"),)}}, "metadata.a.b.0", "finite"),
        *(({"a": Decimal(odd)}, "metadata.a", "finite") for odd in ("NaN", "sNaN", "Infinity", "-Infinity")),
        ({1: "x"}, "metadata", "int"),
        ({"a": {None: "x"}}, "metadata.a", "NoneType"),
        ({"a": "nul\x00"}, "metadata.a", "NUL"),
        ({"nul\x00": 1}, "metadata", "NUL"),
        ({"a": ["\ud800"]}, "metadata.a.0", "surrogate"),
        ({"\udfff": 1}, "metadata", "surrogate"),
        ({"a": object()}, "metadata.a", "object"),
        ({"a": bytearray(b"x")}, "metadata.a", "bytearray"),
        ({"a": 1j}, "metadata.a", "complex"),
        ({"a": lambda: None}, "metadata.a", "function"),
        ({"a": nested(MAX_DEPTH)}, "metadata", "64"),
        ({"a": nested(5000)}, "metadata", "deeper"),
    ],
)
def test_what_cannot_be_kept_is_refused_by_name(value, field, says):
    with pytest.raises(InvalidInput, match=says) as refused:
        dumps(value, field="metadata")
    named = refused.value.field
    assert named == field or (field == "metadata" and named.startswith("metadata"))
    str(refused.value)


def test_what_holds_itself_is_refused():
    ring = []
    ring.append(ring)
    with pytest.raises(InvalidInput, match="deeper"):
        dumps(ring)


@pytest.mark.parametrize("wrap", [lambda v: [v], lambda v: (v,), lambda v: {"$": v}, lambda v: {"a": v}])
def test_the_deepest_value_allowed_can_be_read(wrap):
    value = 1
    for _ in range(MAX_DEPTH):
        value = wrap(value)
    assert loads(dumps(value)) == value
    with pytest.raises(InvalidInput):
        dumps(wrap(value))


def test_a_set_may_hold_text_that_is_a_tags_name():
    assert loads(dumps({"$set"})) == {"$set"}


def test_a_number_too_long_to_write_is_refused_by_name():
    with pytest.raises(InvalidInput) as refused:
        dumps({"n": 10**5000}, field="metadata")
    assert refused.value.field == "metadata.n"


def test_a_day_is_not_a_moment():
    both = [date(2026, 3, 1), datetime(2026, 3, 1), UUID(int=0), Decimal("1.10"), b""]
    assert same(loads(dumps(both)), both)


@settings(max_examples=120, deadline=None)
@given(MESSAGES)
def test_a_message_survives_its_line(item):
    line = message_to_line(item)
    assert "\n" not in line
    back = boundary.message(loads(line), now=datetime.now(UTC), max_bytes=10**6)
    assert back == item
    assert same(dict(back.metadata), dict(item.metadata))


@settings(max_examples=60, deadline=None)
@given(MESSAGES)
def test_extras_hold_what_columns_do_not(item):
    back = extra_fields(extra_json(item))
    for key in ("tool_calls", "tool_call_id", "metadata", "payload"):
        assert back.get(key) == (getattr(item, key) or None)
    assert extra_fields(None) == extra_fields("") == {}
