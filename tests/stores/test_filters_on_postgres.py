"""PostgreSQL finds by a filter's jsonpath what Python finds by its predicate."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from itertools import product

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_memory_plugins.filters import jsonpath, matcher, parse, plain

pytestmark = pytest.mark.slow

KEYS = [
    *("a", "b", "", " ", ".", "a.b", "a$b", "@", "*", "**", "[0]", "?(1==1)", "type()", "last", "true", "strict a"),
    *('"', "\\", '\\"', "'", "\\u0000", "\\n", "\n", "\t", "\x01", "\x7f", "é", "e\u0301", "日本", "🙂", "👩‍👩‍👧"),
    *("\uffff", "\ue000", "\U0010ffff", "\u2028", "\u200e", "%s", "{}", "x" * 200),
]
TEXTS = [
    *KEYS,
    *(
        "A",
        "ab",
        "aé",
        "***=a",
        "(?i)A",
        "a|b",
        "a+",
        "^a$",
        "[ab]",
        "\\d",
        "ẞ",
        "ss",
        "İ",
        "i",
        "1",
        "null",
        "a" * 999,
    ),
    *("2026-03-01", "2026-03-01T12:00:00.000000+00:00"),
]
NUMBERS = [
    *(
        0,
        -0.0,
        1,
        -1,
        1.0,
        1.5,
        -1.5,
        0.1,
        0.30000000000000004,
        1e16,
        1e23,
        10**23,
        1e-7,
        5e-324,
        1.7976931348623157e308,
    ),
    *(2**53, 2**53 + 1, float(2**53), -(2**53) - 1, 2**63, 10**400, 10**400 + 1, -(10**400)),
    *(Decimal("0.1"), Decimal("1.10"), Decimal(2**60) + Decimal("0.5"), Decimal("1E+5000"), Decimal("-1E+9999")),
    *(Decimal("0.12345678901234567890"), Decimal("1E-400"), Decimal(2**53) - Decimal("0.5")),
]
TIMES = [datetime(2026, 3, 1, 12, tzinfo=UTC), datetime(2026, 3, 1, 12, 0, 0, 1), datetime(2026, 3, 1).date(), b"\0"]
SCALARS = [None, True, False, *TEXTS, *NUMBERS, *TIMES]
NESTED = [
    *([], [[]], {}, [None], [True], [1, "a"], ["a", 1], [[1, "a"]], [{"a": 1}], {"a": 1}, {"a": {"a": 1}}, {"a": [1]}),
    *({"a": None}, ["a", None, {"b": ["a"]}], {"": {"": ""}}, [1.0], (1,), {"b": [{"a": "a"}, {"a": 1}]}),
]


def disagreements(url, pairs):
    """Those of the pairs of metadata and filter that PostgreSQL and Python see differently."""
    read = [(plain(metadata), parse(asked)) for metadata, asked in pairs]
    sent = [json.dumps(metadata) for metadata, _ in read]
    with psycopg.connect(url) as connection:
        found = connection.execute(
            """select m::jsonb @@ p::jsonpath, jsonb_path_match(m::jsonb, p::jsonpath)
                 from unnest(%s::text[], %s::text[]) with ordinality as t(m, p, n) order by n""",
            (sent, [jsonpath(condition) for _, condition in read]),
        ).fetchall()
    tests = [matcher(condition) for _, condition in read]
    expected = [test(metadata) for test, (metadata, _) in zip(tests, read, strict=True)]
    assert expected == [test(json.loads(metadata)) for test, metadata in zip(tests, sent, strict=True)]
    return [pair for pair, here, there in zip(pairs, expected, found, strict=True) if there != (here, here)]


def asking(value):
    """All that can be asked of a value."""
    yield value
    yield {"$ne": value}
    yield {"$in": [value, "other"]}
    if not isinstance(value, str) or len(value) <= 1000:
        yield {"$contains": value}
    if value is not None and not isinstance(value, bool):
        yield from ({operator: value} for operator in ("$gt", "$gte", "$lt", "$lte"))


@pytest.mark.parametrize("kind", [TEXTS[::2], TEXTS[1::2], NUMBERS, [None, True, False, *TIMES, *TEXTS[:3]]])
def test_every_value_by_every_operator(database_url, kind):
    """Against those of its own kind, alone and in a list, and against some of every other."""
    others = [*kind, *([value] for value in kind), *NESTED, None, True, False, 0, 1, "", "a", *TIMES]
    pairs = [({"k": held}, {"k": asked}) for held, value in product(others, kind) for asked in asking(value)]
    assert len(pairs) > 2000
    assert disagreements(database_url, pairs) == []


@pytest.mark.parametrize("key", KEYS)
def test_every_key(database_url, key):
    metadata = [{key: 1}, {key: {key: 1}}, {key: {key: [1]}}, {key: [{key: 1}]}, {key + "x": 1}, {"a": {key: 1}}, {}]
    asks = [1, {"$exists": True}, {"$gt": 0}, {"$contains": 1}, {"$nin": [1]}]
    pairs = [(held, path) for held in metadata for asked in asks for path in ({key: asked}, {key: {key: asked}})]
    assert disagreements(database_url, pairs) == []


keys = st.sampled_from(KEYS[:12]) | st.sampled_from(["a", "b"])
scalars = st.sampled_from(SCALARS) | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=6
)
conditions = scalars.flatmap(lambda value: st.sampled_from(list(asking(value)))) | st.builds(
    lambda there: {"$exists": there}, st.booleans()
)
filters = st.recursive(
    st.dictionaries(keys, conditions, min_size=1, max_size=2),
    lambda inner: st.one_of(
        st.dictionaries(keys, inner, min_size=1, max_size=2),
        st.builds(lambda part: {"$not": part}, inner),
        st.builds(lambda parts: {"$and": parts}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda parts: {"$or": parts}, st.lists(inner, min_size=1, max_size=3)),
    ),
    max_leaves=6,
)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.dictionaries(keys, values, max_size=4), min_size=6, max_size=8),
    st.lists(filters, min_size=6, max_size=8),
)
def test_any_filter_of_any_metadata(database_url, metadata, asked):
    assert disagreements(database_url, list(product(metadata, asked))) == []


def test_the_largest_filters(database_url):
    deep, hostile = {"a": 1}, "".join(chr(0x4E00 + n) for n in range(1000))
    for _ in range(31):
        deep = {"$not": {"$and": [deep]}} if len(str(deep)) % 2 else {"$not": deep}
    largest = [
        {"a": {"$in": [*range(999), "x"]}},
        {"a": {"$nin": ["y" * 10_000] * 100}},
        {"$or": [{"a": {"$contains": f"{n}" * 100}} for n in range(100)]},
        {"$and": [{"$not": {"a": n}} for n in range(1000)]},
        {"a": {"$contains": hostile}},
        {"y" * 10_000: {"$exists": False}},
    ]
    assert disagreements(database_url, list(product([{"a": "x"}, {"a": hostile * 3}, {"a": 7}, {}], largest))) == []
