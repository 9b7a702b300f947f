"""What every `VectorIndex` must make of a `Where`: the same records in `page`, `count`, `match` and `delete`."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import product
from typing import Any
from uuid import UUID

from llm_memory_plugins import filters
from llm_memory_plugins.records import Record, Where
from llm_memory_plugins.testing.message_log import HOSTILE
from llm_memory_plugins.testing.vector_entries import START, Index, VectorSuite, entry, ids, probe, talk

ALL = Where()
DAY = timedelta(days=1)
VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 1.0, 1.5, 0.1, -0.0, 2**53 + 1, 10**30, 1e30, 1e-7, Decimal("0.1"), Decimal(2)),
    *(
        "",
        "a",
        "b",
        "B",
        "1",
        "true",
        "null",
        "é",
        "e\u0301",
        "日本",
        "🙂",
        "\uffff",
        "a\nb",
        'say "x"',
        "a.b*c\\d",
        "%_",
    ),
    *([], [1], ["a", "b"], [None], [[1]], [True], [{"k": 1}], {}, {"k": 1}, {"k": {"k": "deep"}}, {"k": None}),
    *(datetime(2026, 3, 1, 9, tzinfo=UTC), datetime(2026, 3, 1, 9, 0, 0, 1, tzinfo=UTC), date(2026, 3, 1)),
    *(b"\x00\xff", UUID(int=7), (1, "a"), {"a"}, "x" * 2000),
]
ASKED: list[Any] = [value for value in VALUES if not isinstance(value, list | dict | tuple | set)]
ORDERED = [value for value in ASKED if value is not None and not isinstance(value, bool)]
FILTERS: list[dict[str, Any]] = [
    {},
    *({"v": value} for value in ASKED),
    *({"v": {"$gt": value}} for value in ORDERED[::2]),
    *({"v": {"$lte": value}} for value in ORDERED[1::2]),
    *({"v": {operator: value}} for operator in ("$gte", "$lt") for value in ("a", 1, 1.5, "2026-03-01")),
    *(
        {"v": {"$contains": value}}
        for value in (None, True, 1, "", "a", "e", "A", ".", "\n", "日", "🙂", 'say "', "\\d")
    ),
    *({"v": {"$ne": value}} for value in (None, 1, "a", True)),
    {"v": {"$in": []}},
    {"v": {"$in": [1, "a", None, True]}},
    {"v": {"$nin": [1, "a", None, True]}},
    {"v": {"$exists": True}},
    {"v": {"$exists": False}},
    {"w": {"$exists": True}},
    {"w": None},
    {"w": {"$ne": 1}},
    {"v": {"k": 1}},
    {"v": {"k": {"k": "deep"}}},
    {"v": {"k": {"$exists": True}}},
    {"v": {"k": {"$not": {"$gt": 0}}}},
    {"n": {"$gte": 3, "$lt": 20}, "v": {"$ne": "a"}},
    {"$or": [{"v": 1}, {"v": "a"}, {"n": {"$in": [7, 8]}}]},
    {"$not": {"$and": [{"n": {"$gt": 5}}, {"$or": [{"v": {"$exists": False}}, {"n": {"$lt": 30}}]}]}},
    {"a.b": 1},
    {"a": {"b": 1}},
    {"$and": [{"n": {"$gt": n}} for n in range(-200, 0)]},
]


class VectorConditionsSuite(VectorSuite):
    """Ids, sessions, sources, times and filters, alone and together; and pages."""

    async def test_every_combination_of_conditions(self, index: Index) -> None:
        entries = [
            entry(
                str(n),
                session_id=("s", "t", None)[n % 3],
                source=("x", None)[n // 3 % 2],
                created_at=START + n * DAY,
                metadata={"n": n},
            )
            for n in range(24)
        ]
        await index.put("u", entries)
        given: dict[str, Any] = {
            "ids": (*map(str, range(0, 24, 3)), "5", "absent"),
            "session_id": "s",
            "source": "x",
            "since": START + 4 * DAY,
            "until": START + 19 * DAY,
            "filter": filters.parse({"n": {"$in": [0, 5, 6, 11, 12, 18, 19]}}),
        }
        for chosen in product((False, True), repeat=len(given)):
            asked = {name: value for (name, value), taken in zip(given.items(), chosen, strict=True) if taken}
            expected = sorted(each.record.id for each in entries if _fits(each.record, asked))
            assert [record.id for record in await index.page("u", Where(**asked))] == expected, asked
            if len(asked) < 2:
                assert await index.count("u", Where(**asked)) == len(expected), asked
        await index.delete("u", Where(**given))
        left = [each.record.id for each in entries if not _fits(each.record, given)]
        assert len(left) < 24
        assert {record.id for record in await index.page("u", ALL)} == set(left)
        assert (await self.exact(index, "u")).parts == len(left)

    async def test_filters_on_metadata(self, index: Index) -> None:
        metadata: list[dict[str, Any]] = [{"n": n, "v": value} for n, value in enumerate(VALUES)]
        metadata += [{}, {"a.b": 1}, {"a": {"b": 1}}, {"n": 7, "w": 1}]
        await index.put("u", [entry(str(n), metadata=each) for n, each in enumerate(metadata)])
        plain = [filters.plain(each) for each in metadata]
        for given in FILTERS:
            condition = filters.parse(given)
            fits = filters.matcher(condition)
            expected = sorted(str(n) for n, each in enumerate(plain) if fits(each))
            where = Where(filter=condition)
            assert [record.id for record in await index.page("u", where)] == expected, given
        where = Where(filter=filters.parse({"v": {"$contains": "a"}}))
        names = [record.id for record in await index.page("u", where)]
        assert 0 < len(names) == await index.count("u", where)
        assert await ids(index, "u", probe(near="x", where=where)) == names
        assert (await index.delete("u", where)).removed["records"] == len(names)
        assert await index.count("u", ALL) == len(metadata) - len(names)

    async def test_filters_of_any_text(self, index: Index) -> None:
        await index.put("u", [entry(text, metadata={text: {text: text, "in": [f"<{text}>"]}}) for text in HOSTILE])
        for text in HOSTILE:  # not parsed: there a key cannot begin with $
            same = [filters.Comparison((text, text), how, text) for how in ("eq", "gte", "lte", "contains")]
            listed = filters.Comparison((text, text), "in", ("", text))
            held = filters.Comparison((text, "in"), "contains", f"<{text}>")
            for condition in (filters.All((*same, listed, held)), held, filters.Comparison((text,), "exists", True)):
                assert [record.id for record in await index.page("u", Where(filter=condition))] == [text]
            other = filters.Comparison((f"{text} ",), "exists", True)
            assert await index.count("u", Where(filter=filters.Some((other, filters.Not(same[0]))))) == len(HOSTILE) - 1

    async def test_no_ids_are_nobody(self, index: Index) -> None:
        await index.put("u", talk(3))
        assert await index.page("u", Where(ids=())) == ()
        assert await index.count("u", Where(ids=())) == 0
        assert (await index.match("u", probe(near="s1", where=Where(ids=())))).rows == ()
        assert (await index.delete("u", Where(ids=()))).total == 0
        assert await index.count("u", ALL) == 3

    async def test_pages(self, index: Index) -> None:
        names = sorted([*HOSTILE, "A", "a", "Z", "z", "é", "\U0001f642", "\uffff", *(str(n) for n in range(1100))])
        await index.put("u", [entry(name, vectors=False) for name in reversed(names)])
        seen: list[str] = []
        while page := await index.page("u", ALL, after=seen[-1] if seen else None, limit=400):
            assert len(page) <= 400
            assert not seen or page[0].id > seen[-1]
            seen += [record.id for record in page]
        assert seen == names
        assert len(await index.page("u", ALL, limit=2**40)) == len(names)
        assert [record.id for record in await index.page("u", Where(ids=("5", "50", "7")), after="5", limit=1)] == [
            "50"
        ]
        assert await index.page("u", ALL, after="\U0010ffff") == ()


def _fits(record: Record, asked: dict[str, Any]) -> bool:
    """What `Where` says, in other words."""
    return (
        record.id in asked.get("ids", (record.id,))
        and record.session_id == asked.get("session_id", record.session_id)
        and record.source == asked.get("source", record.source)
        and asked.get("since", record.created_at) <= record.created_at
        and record.created_at < asked.get("until", record.created_at + DAY)
        and ("filter" not in asked or filters.matcher(asked["filter"])(filters.plain(record.metadata)))
    )
