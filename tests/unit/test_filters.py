"""Filters on metadata: how they are read, what they mean, and what is refused by which name."""

import json
import time
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import IntEnum, StrEnum
from fractions import Fraction
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_memory_plugins.codec import dumps
from llm_memory_plugins.errors import InvalidInput
from llm_memory_plugins.filters import All, Comparison, Not, Some, jsonpath, matcher, parse, plain

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
DOCUMENT = {
    "lang": "en",
    "year": 2020,
    "price": 9.5,
    "draft": False,
    "nothing": None,
    "tags": ["new", 7, None, ["nested"]],
    "author": {"name": "Ann", "born": {"year": 1990}},
    "a.b": "dotted",
    "at": NOON,
    "": "empty key",
}


def holds(asked, metadata=DOCUMENT):
    return matcher(parse(asked))(plain(metadata))


def refused(asked):
    with pytest.raises(InvalidInput) as error:
        parse(asked)
    assert str(error.value).startswith(f"{error.value.field}: ")
    return error.value


def test_a_filter_is_read_into_conditions():
    assert parse({"lang": "en"}) == Comparison(("lang",), "eq", "en")
    assert parse({"year": {"$gte": 2020, "$lt": 2030}}) == All(
        (Comparison(("year",), "gte", 2020), Comparison(("year",), "lt", 2030))
    )
    assert parse({"a": {"b": {"$ne": 1}}}) == Not(Comparison(("a", "b"), "eq", 1))
    assert parse({"a": {"$nin": [1]}}) == Not(Comparison(("a",), "in", (1,)))
    assert parse({"a": {"$exists": False}}) == Not(Comparison(("a",), "exists", True))
    assert parse({"$or": [{"a": 1}, {"b": 2}]}) == Some((Comparison(("a",), "eq", 1), Comparison(("b",), "eq", 2)))
    assert parse({}) == All(())
    assert holds({}, {})


@given(st.dictionaries(st.text(st.characters(exclude_characters="$\0", exclude_categories=["Cs"])), st.integers()))
def test_what_was_parsed_is_taken_as_it_is(asked):
    assert parse(parse(asked)) == parse(asked)
    assert parse(asked) == parse(json.loads(json.dumps(asked)))


TRUE = [
    {"lang": "en"},
    {"lang": "en", "year": 2020},
    {"year": 2020.0},
    {"year": Decimal(2020)},
    {"draft": False},
    {"nothing": None},
    {"nothing": {"$exists": True}},
    {"": "empty key"},
    {"a.b": "dotted"},
    {"author": {"name": "Ann"}},
    {"author": {"name": "Ann", "born": {"year": {"$lt": 2000}}}},
    {"author": {"born": {"$exists": True}}},
    {"year": {"$gt": 2019.5}},
    {"year": {"$gte": 2020, "$lte": 2020}},
    {"lang": {"$gt": "EN", "$lt": "enough"}},
    {"lang": {"$in": ["de", "en", 7]}},
    {"tags": {"$contains": "new"}},
    {"tags": {"$contains": 7.0}},
    {"tags": {"$contains": None}},
    {"lang": {"$contains": "n"}},
    {"lang": {"$contains": ""}},
    {"at": NOON},
    {"at": NOON.astimezone(timezone(timedelta(hours=5)))},
    {"at": {"$gt": NOON - timedelta(microseconds=1), "$lt": NOON + timedelta(microseconds=1)}},
    {"at": {"$gt": date(2026, 3, 1)}},
    {"at": {"$lt": "2026-03-02"}},
    {"$or": [{"lang": "de"}, {"year": {"$gt": 2000}}]},
    {"$and": [{"lang": "en"}, {"$not": {"lang": "de"}}]},
    {"lang": "en", "$or": [{"year": 1}, {"draft": False}]},
    {"year": {"$not": {"$gte": 2021}}},
    {"year": {"$not": 1}},
    {"year": {"$or": [{"$lt": 0}, {"$gt": 100}]}},
    {"$not": {"author": {"name": "Bo"}}},
]  # fmt: skip
FALSE = [
    {"lang": "EN"},
    {"lang": "en", "year": 2021},
    {"year": "2020"},
    {"year": True},
    {"draft": 0},
    {"draft": None},
    {"nothing": False},
    {"missing": None},
    {"missing": {"$exists": True}},
    {"author": {"name": {"first": "Ann"}}},
    {"author": "Ann"},
    {"tags": {"name": "new"}},
    {"tags": "new"},
    {"a": {"b": "dotted"}},
    {"year": {"$gt": "2000"}},
    {"lang": {"$gt": 1}},
    {"draft": {"$lte": 1}},
    {"tags": {"$gt": 1}},
    {"tags": {"$contains": "nested"}},
    {"tags": {"$contains": True}},
    {"year": {"$contains": 2020}},
    {"year": {"$contains": "20"}},
    {"author": {"$contains": "name"}},
    {"lang": {"$contains": "N"}},
    {"lang": {"$in": []}},
    {"tags": {"$in": ["new"]}},
    {"draft": {"$in": [0]}},
]


@pytest.mark.parametrize("asked", TRUE, ids=str)
def test_what_holds(asked):
    assert holds(asked)
    assert not holds({"$not": asked})


@pytest.mark.parametrize("asked", FALSE, ids=str)
def test_what_does_not_hold(asked):
    assert not holds(asked)
    assert holds({"$not": asked})


@pytest.mark.parametrize("other", [None, "x", True, 7, {"deep": 1}, ["list"]])
def test_to_deny_is_the_opposite_whatever_is_there(other):
    for metadata in ({}, {"a": other}, {"a": {"b": other}}, {"a": [other]}):
        for value in (None, "x", True, 7):
            for path in (lambda asked: {"a": asked}, lambda asked: {"a": {"b": asked}}):
                assert holds(path({"$ne": value}), metadata) != holds(path({"$eq": value}), metadata)
                assert holds(path({"$nin": [value]}), metadata) != holds(path({"$in": [value]}), metadata)


class Colour(StrEnum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


@pytest.mark.parametrize(
    ("value", "asked_as"),
    [
        (NOON, "2026-03-01T12:00:00.000000+00:00"),
        (datetime(2026, 3, 1, 12), "2026-03-01T12:00:00.000000+00:00"),
        (datetime(2026, 3, 1, 12, tzinfo=timezone(timedelta(hours=-8))), "2026-03-01T20:00:00.000000+00:00"),
        (datetime.min.replace(tzinfo=timezone(timedelta(hours=1))), "0001-01-01T00:00:00.000000+00:00"),
        (datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))), "9999-12-31T23:59:59.999999+00:00"),
        (date(2026, 3, 1), "2026-03-01"),
        (UUID(int=7), "00000000-0000-0000-0000-000000000007"),
        (b"hi", "aGk="),
        ((1, (2,)), [1, [2]]),
        ({1}, [1]),
        (Colour.RED, "red"),
        (Level.HIGH, 3),
        (True, True),
        (-0.0, 0),
        (2.0, 2),
        (0.1, 0.1),
        (1e23, 10**23),
        (Decimal("0.10"), 0.1),
        (Decimal("7.00"), 7),
        (Decimal("0E+9999"), 0),
        (Decimal("1E+999999999"), 10**4000),
        (Decimal("-1E+999999999"), -(10**4000)),
        (Decimal("1E-999999999"), 0),
        (Decimal(2**60) + Decimal("0.5"), 2**60),
        ({"deep": {"er": (NOON,)}}, {"deep": {"er": ["2026-03-01T12:00:00.000000+00:00"]}}),
    ],
    ids=str,
)
def test_the_form_in_which_metadata_is_asked(value, asked_as):
    found = plain({"a": value})["a"]
    assert found == asked_as
    assert type(found) is type(asked_as)
    assert json.loads(json.dumps(found)) == found
    dumps(value)  # metadata may hold it


numbers = st.one_of(
    st.integers(-(2**60), 2**60),
    st.floats(allow_nan=False, allow_infinity=False),
    st.decimals(allow_nan=False, allow_infinity=False),
    st.sampled_from([2**53, 2**53 + 1, float(2**53), 1e23, 10**23, 0.1, Decimal("0.1"), 5e-324, 10**400]),
)


def decimal(number):
    return Decimal(repr(number)) if isinstance(number, float) else Decimal(number)


@given(numbers, numbers)
def test_numbers_keep_the_order_of_the_decimals_they_are_written_as(one, other):
    if decimal(one) == decimal(other):
        assert holds({"a": one}, {"a": other})
    if decimal(one) < decimal(other):
        assert holds({"a": {"$lte": other}}, {"a": one})
        assert not holds({"a": {"$gt": other}}, {"a": one})
        assert holds({"a": {"$lt": other}}, {"a": one}) or isinstance(one, Decimal) or isinstance(other, Decimal)


@given(st.datetimes(timezones=st.timezones() | st.none()), st.datetimes(timezones=st.timezones() | st.none()))
def test_times_keep_their_order(one, other):
    def instant(moment):
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)

    assert holds({"a": {"$lt": other}}, {"a": one}) == (instant(one) < instant(other))
    assert holds({"a": other}, {"a": one}) == (instant(one) - instant(other) == timedelta(0))


@pytest.mark.parametrize(
    ("asked", "field", "says"),
    [
        (7, "filter", "mapping"),
        ("lang = 'en'", "filter", "a dot in a key is a dot"),
        ([{"a": 1}], "filter", "mapping"),
        ({"year": {"$gtt": 1}}, "filter.year.$gtt", "known are $eq, $ne, $gt"),
        ({"year": {"$regex": "x"}}, "filter.year.$regex", "known are $eq"),
        ({"$gt": 1}, "filter.$gt", '{"year": {"$gt": ...}}'),
        ({"$nor": []}, "filter.$nor", "$and, $or, $not"),
        ({"a": {"$gt": 1, "b": 2}}, "filter.a", "mixes '$gt'"),
        ({"a": {}}, "filter.a", "not empty"),
        ({"a": [1, 2]}, "filter.a", "use $in or $contains"),
        ({"a": {"$eq": (1,)}}, "filter.a.$eq", "use $in or $contains"),
        ({"a": {"$eq": {"b": 1}}}, "filter.a.$eq", "dict"),
        ({"a": {"$in": "abc"}}, "filter.a.$in", "list"),
        ({"a": {"$in": [1, [2]]}}, "filter.a.$in.1", "list"),
        ({"a": {"$contains": [1]}}, "filter.a.$contains", "list"),
        ({"a": {"$contains": "x" * 1001}}, "filter.a.$contains", "1,000"),
        ({"a": {"$exists": 1}}, "filter.a.$exists", "True or False"),
        ({"a": {"$gt": None}}, "filter.a.$gt", "number, a text or a time"),
        ({"a": {"$lte": True}}, "filter.a.$lte", "bool"),
        ({"a": {"$gt": float("nan")}}, "filter.a.$gt", "finite"),
        ({"a": Decimal("Infinity")}, "filter.a", "finite"),
        ({"a": Fraction(1, 2)}, "filter.a", "Fraction"),
        ({"a": object()}, "filter.a", "object"),
        ({"a": "x\0"}, "filter.a", "NUL"),
        ({"a": "\ud800"}, "filter.a", "surrogate"),
        ({"a": "x" * 10_001}, "filter.a", "10,001 characters"),
        ({"a\0": 1}, "filter (a key)", "NUL"),
        ({"b": {"x" * 10_001: 1}}, "filter.b (a key)", "10,000"),
        ({1: 2}, "filter", "keys must be text"),
        ({"a": {1: 2}}, "filter.a", "keys must be text"),
        ({"$and": {"a": 1}}, "filter.$and", "list"),
        ({"$or": []}, "filter.$or", "not empty"),
        ({"$and": [{"a": 1}, 7]}, "filter.$and.1", "mapping"),
        ({"$and": [{}]}, "filter.$and.0", "not empty"),
        ({"$not": 7}, "filter.$not", "mapping"),
        ({"$and": [{"a": 1}, {"b": {"$or": [{"$in": [None, {}]}]}}]}, "filter.$and.1.b.$or.0.$in.1", "dict"),
        ({"a": {"$in": list(range(1001))}}, "filter", "more than 1,000 values"),
        ({"$or": [{"a": {"$exists": True}}] * 1001}, "filter", "more than 1,000 values"),
    ],
)  # fmt: skip
def test_what_is_no_filter_is_refused_by_its_place(asked, field, says):
    error = refused(asked)
    assert error.field == field
    assert says in str(error)


def test_what_is_nested_too_deep_or_into_itself_is_refused():
    deep = {"a": 1}
    for _ in range(31):
        deep = {"$not": deep}
    assert holds(deep, {"a": 2})
    assert refused({"$not": deep}).field == "filter"
    loop = {}
    loop["a"] = loop
    assert "32 levels" in str(refused(loop))
    loop["a"] = {"$and": [loop, loop, {"b": 1}]}
    assert refused(loop).field == "filter"
    wide = {"a": 1}
    for _ in range(30):
        wide = {"$and": [wide, wide]}  # a billion conditions
    assert "1,000 values" in str(refused(wide))


def test_a_filter_of_the_largest_size_is_taken():
    assert holds({"a": {"$in": [*range(999), "x"]}}, {"a": "x"})
    assert holds({"a": "x" * 10_000}, {"a": "x" * 10_000})
    assert len(jsonpath(parse({"$or": [{"a": n} for n in range(1000)]}))) < 50_000


def test_a_text_in_a_filter_ends_nothing_in_the_path():
    path = jsonpath(parse({'a") || (1 == 1': 'x\\"'}))
    assert path == r'strict exists($ ? (@."a\") || (1 == 1" == "x\\\""))'


def test_a_hundred_thousand_records_are_asked_in_a_blink():
    condition, documents = matcher(parse({"year": {"$gte": 2020}})), [{"year": n} for n in range(100_000)]
    begun = time.perf_counter()
    assert sum(map(condition, documents)) == 97_980
    assert time.perf_counter() - begun < 1  # 0.02 s on an idle machine
