"""What every `KeyValue` must hold. Subclass, give the fixtures, and pytest runs the whole suite.

```python
class TestMyStore(KeyValueSuite):
    @pytest.fixture
    async def store(self): ...

    @pytest.fixture
    async def twin(self, store): ...

    async def rows(self): ...
```
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from llm_memory_plugins.codec import dumps
from llm_memory_plugins.errors import Conflict, InvalidInput
from llm_memory_plugins.key_values import Newest, NewValue, SealedValue, Space
from llm_memory_plugins.keyvalue_ports import KeyValue
from llm_memory_plugins.testing.message_log import HOSTILE
from llm_memory_plugins.values import LAST, add

START = datetime(2026, 3, 1, 9, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
ONE = Space("u", "n")
NUMBERS = [0, 1, -1, 7, 10**30, -(10**30), 0.5, -0.5, 0.1, 0.2, 1e16, 1e-5, 1e300, -1e300, 1.7e308, 5e-324, 2**53]
NO_NUMBERS = ['"1"', "[1]", "null", "true", "{}", '"x"', '{"$decimal":"1"}', '"' + "9" * 5000 + '"']


def new(key: str, value: Any = 1, *, encoding: str = "json", **more: Any) -> NewValue:
    """A value as an engine hands it to a store."""
    return NewValue(key, dumps(value) if encoding == "json" else value, encoding, **more)


def values(held: Iterable[SealedValue]) -> dict[str, Any]:
    """What is in plain JSON entries, by key."""
    return {each.key: json.loads(each.body) for each in held}


class KeyValueSuite:
    """Versions, atomicity, numbers, ends, order, erasure, hostile keys, and many at once."""

    @pytest.fixture
    async def store(self) -> AsyncIterator[KeyValue]:
        """An empty store. Override."""
        raise NotImplementedError("give the suite a store")
        yield

    @pytest.fixture
    async def twin(self, store: KeyValue) -> AsyncIterator[KeyValue]:
        """What another process has of the same store. Override."""
        raise NotImplementedError("give the suite another object over the same store")
        yield

    async def rows(self) -> list[tuple[str, str, str, str]]:
        """(user_id, namespace, key, body) of all rows, expired ones too, read behind the store's back. Override."""
        raise NotImplementedError("read the rows without using the store")

    async def test_values_come_back_as_they_went_in(self, store: KeyValue, twin: KeyValue) -> None:
        given = [
            new("plain", {"text": 'te"xt\n日本語 🙂', "n": [1, 2.5, None, True]}),
            new("raw", "AAH/", encoding="bytes", expires_at=START + HOUR),
            new("sealed", "c2VhbGVk+/==", encoding="json+zstd+aes.0123abcd"),
            new("empty", ""),
        ]
        moment = START + timedelta(microseconds=123_457)
        written = await store.write(ONE, given, now=moment)
        assert [each.key for each in written] == ["plain", "raw", "sealed", "empty"]
        for value, held in zip(given, written, strict=True):
            assert (held.body, held.encoding, held.expires_at) == (value.body, value.encoding, value.expires_at)
            assert held.created_at == held.updated_at == moment
            assert held.version > 0
        for process in (store, twin):
            read = await process.read(ONE, [value.key for value in given], now=START)
            assert {each.key: each for each in read} == {each.key: each for each in written}
            assert await process.read(ONE, ["nothing", "Plain", " plain"], now=START) == ()
            assert await process.read(ONE, [], now=START) == ()

    async def test_a_later_version_is_higher_over_removals_too(self, store: KeyValue, twin: KeyValue) -> None:
        versions: list[int] = []
        for n in range(6):
            process = (store, twin)[n % 2]
            (held,) = await process.write(ONE, [new("k", n)], now=START + n * HOUR)
            versions.append(held.version)
            assert (held.created_at, held.updated_at) == (START + (n // 3 * 3) * HOUR, START + n * HOUR)
            if n == 2:
                assert (await process.remove(*ONE, ["k"], now=START)).versions == {"k": held.version}
        assert versions == sorted(set(versions))

    async def test_all_are_written_or_none(self, store: KeyValue, twin: KeyValue) -> None:
        (held,) = await store.write(ONE, [new("b", "old")], now=START)
        after = held.version + 1
        for wrong, culprit in (
            ([new("a"), new("b", "new", expected=after), new("c")], "b"),
            ([new("a"), new("b", "new", expected=0), new("c")], "b"),
            ([new("a", expected=0), new("b", "new", expected=held.version), new("c", expected=after)], "c"),
            ([new("c", expected=after), new("b", "new", expected=after), new("a", expected=after)], "a"),
        ):
            with pytest.raises(Conflict, match=f"key '{culprit}'"):
                await twin.write(ONE, wrong, now=START)
            assert values(await store.read(ONE, ["a", "b", "c"], now=START)) == {"b": "old"}
            assert await self.rows() == [("u", "n", "b", '"old"')]
        await twin.write(ONE, [new("a", expected=0), new("b", "new", expected=held.version), new("c")], now=START)
        assert values(await store.read(ONE, ["a", "b", "c"], now=START)) == {"a": 1, "b": "new", "c": 1}

    async def test_of_many_who_expect_the_same_version_one_wins(self, store: KeyValue, twin: KeyValue) -> None:
        async def attempt(n: int, expected: int) -> int | None:
            try:
                written = await (store, twin)[n % 2].write(ONE, [new("k", n, expected=expected)], now=START)
            except Conflict:
                return None
            return written[0].version

        expected = 0
        for _ in range(4):
            won = [version for version in await asyncio.gather(*(attempt(n, expected) for n in range(8))) if version]
            assert len(won) == 1
            expected = won[0]

    async def test_numbers_are_added_as_python_adds_them(self, store: KeyValue) -> None:
        cases = [
            (one, other) for one in NUMBERS for other in NUMBERS if not isinstance(other, int) or abs(other) < 2**63
        ]
        written = await store.write(ONE, [new(f"k{n}", one) for n, (one, _) in enumerate(cases)], now=START)
        for n, (one, other) in enumerate(cases):
            expected = add(one, other)
            if expected is None:
                with pytest.raises(InvalidInput, match=f"k{n}:"):
                    await store.increment(ONE, f"k{n}", other, now=START)
                expected = one
            else:
                held = await store.increment(ONE, f"k{n}", other, now=START)
                assert held.version > written[n].version
            read = values(await store.read(ONE, [f"k{n}"], now=START))[f"k{n}"]
            assert (read, type(read)) == (expected, type(expected)), (one, other)

    @pytest.mark.parametrize("body", NO_NUMBERS)
    async def test_what_is_no_number_stays_as_it_is(self, store: KeyValue, body: str) -> None:
        written = await store.write(ONE, [NewValue("k", body), NewValue("b", "MQ==", "bytes")], now=START)
        for key in ("k", "b"):
            with pytest.raises(InvalidInput) as caught:
                await store.increment(ONE, key, 1, now=START)
            assert caught.value.field == key
        assert set(await store.read(ONE, ["k", "b"], now=START)) == set(written)

    async def test_increments_of_many_add_up(self, store: KeyValue, twin: KeyValue) -> None:
        done = await asyncio.gather(
            *((store, twin)[n % 2].increment(ONE, "k", n % 3, now=START, expires_at=START + HOUR) for n in range(60))
        )
        assert len({held.version for held in done}) == 60
        assert max(done, key=lambda held: held.version).body == "60"
        assert values(await twin.read(ONE, ["k"], now=START)) == {"k": 60}
        assert values(await twin.read(ONE, ["k"], now=START + HOUR)) == {}

    async def test_what_has_expired_is_not_there_for_anybody(self, store: KeyValue, twin: KeyValue) -> None:
        given = [new(key, 5, expires_at=START + HOUR) for key in "abcd"]
        written = await store.write(ONE, [*given, new("e")], now=START)
        later = START + HOUR
        for process in (store, twin):
            assert len(await process.read(ONE, [*"abcde"], now=later - timedelta(microseconds=1))) == 5
            assert values(await process.read(ONE, [*"abcde"], now=later)) == {"e": 1}
            assert values(await process.read(ONE, Newest(), now=later)) == {"e": 1}
            assert await process.keys(ONE, now=later) == ("e",)
        with pytest.raises(Conflict, match="key 'a'"):
            await store.write(ONE, [new("a", expected=written[0].version)], now=later)
        (anew,) = await store.write(ONE, [new("a", expected=0)], now=later)
        assert anew.created_at == later
        assert anew.version > written[0].version
        counted = await twin.increment(ONE, "b", 2, now=later, expires_at=later + HOUR)
        assert (counted.body, counted.created_at, counted.expires_at) == ("2", later, later + HOUR)
        assert (await store.remove(*ONE, ["c", "nothing"], now=later)).count == 0
        assert [key for _, _, key, _ in await self.rows()] == ["a", "b", "d", "e"]
        assert await store.prune(later, user_id="v") == 0
        assert await store.prune(later, user_id="u") == 1
        assert [key for _, _, key, _ in await self.rows()] == ["a", "b", "e"]
        assert await store.prune(later + HOUR) == 1
        assert values(await twin.read(ONE, [*"abcde"], now=later + HOUR)) == {"a": 1, "e": 1}

    async def test_a_prune_takes_no_more_than_it_may(self, store: KeyValue) -> None:
        await store.write(ONE, [new(f"k{n}", expires_at=START) for n in range(25)], now=START - HOUR)
        assert [await store.prune(START, limit=10) for _ in range(4)] == [10, 10, 5, 0]

    async def test_a_removal_takes_what_it_names_and_nothing_else(self, store: KeyValue, twin: KeyValue) -> None:
        spaces = [Space(user, name) for user in ("", "u", "v") for name in ("m", "n")]
        for space in spaces:
            await store.write(space, [new(key, [*space, key]) for key in ("x", "y", "x:y")], now=START)
        removed = await twin.remove(*ONE, ["x", "z"], now=START)
        assert (removed.count, set(removed.versions)) == (1, {"x"})
        assert values(await store.read(ONE, ["x", "y", "x:y"], now=START)) == {
            "y": ["u", "n", "y"],
            "x:y": ["u", "n", "x:y"],
        }
        assert (await store.remove("u", "n", now=START)).count == 2
        assert (await store.remove("v", now=START)).count == 6
        assert (await store.remove("v", now=START)).count == 0
        left = {
            (*space, key) for space in (Space("", "m"), Space("", "n"), Space("u", "m")) for key in ("x", "y", "x:y")
        }
        assert {(user, name, key) for user, name, key, _ in await self.rows()} == left
        for space in spaces:
            found = values(await twin.read(space, ["x", "y", "x:y"], now=START))
            assert set(found) == {key for user, name, key in left if (user, name) == space}

    async def test_keys_are_listed_in_the_order_of_code_points(self, store: KeyValue) -> None:
        names = sorted(
            {
                *HOSTILE,
                "a",
                "a:",
                "aa",
                "ab",
                "b",
                "A",
                "a%",
                "a_b",
                "a\ud7ff",
                "a\ue000",
                f"a{LAST}",
                f"a{LAST}b",
                LAST,
                "é",
            }
        )
        await store.write(ONE, [new(name) for name in random.sample(names, len(names))], now=START)
        await store.write(Space("u", "other"), [new("a-other")], now=START)
        assert await store.keys(ONE, now=START) == tuple(names)
        for prefix in ("a", "a%", "a:", "aa", f"a{LAST}", LAST, "a\ud7ff", "nothing", "x" * 256):
            expected = [name for name in names if name.startswith(prefix)]
            assert await store.keys(ONE, prefix=prefix, now=START) == tuple(expected), prefix
            paged: list[str] = []
            while page := await store.keys(ONE, prefix=prefix, after=paged[-1] if paged else None, limit=2, now=START):
                paged += page
            assert paged == expected

    async def test_the_newest_are_those_written_last(self, store: KeyValue) -> None:
        for n in range(10):
            await store.write(ONE, [new(f"k{n}", "x" * 8)], now=START)  # ten characters each
        await store.increment(ONE, "count", 1, now=START)
        await store.write(ONE, [new("k3", "y" * 8)], now=START)

        async def newest(**wanted: int) -> list[str]:
            return [held.key for held in await store.read(ONE, Newest(**wanted), now=START)]

        assert await newest() == ["k3", "count", *(f"k{n}" for n in (9, 8, 7, 6, 5, 4, 2, 1, 0))]
        assert await newest(limit=3) == ["k3", "count", "k9"]
        assert await newest(size=12) == ["k3", "count", "k9"]
        assert await newest(size=1) == ["k3"]

    async def test_hostile_names_never_meet(self, store: KeyValue, twin: KeyValue) -> None:
        names = [*HOSTILE[:-1], "1:a", "a1", "11", "u", "n"]
        spaces = [Space(user, name) for user in random.sample(names, 5) for name in random.sample(names, 5)]
        for space in spaces:
            await store.write(space, [new(key, [*space, key]) for key in names], now=START)
        for space in spaces:
            assert values(await twin.read(space, names, now=START)) == {key: [*space, key] for key in names}
        longest = Space("u" * 256, "n" * 256)
        await store.write(longest, [new("x" * 256, "long")], now=START)
        assert values(await twin.read(longest, ["x" * 256], now=START)) == {"x" * 256: "long"}

    async def test_a_thousand_keys_are_one_operation(self, store: KeyValue, twin: KeyValue) -> None:
        written = await store.write(ONE, [new(f"k{n}", n) for n in range(1000)], now=START)
        read = await twin.read(ONE, [f"k{n}" for n in range(1200)], now=START)
        assert {held.key: held for held in read} == {held.key: held for held in written}
        removed = await store.remove(*ONE, [f"k{n}" for n in range(500)], now=START)
        assert removed.count == len(removed.versions) == 500
        assert len(await twin.read(ONE, [f"k{n}" for n in range(1000)], now=START)) == 500

    async def test_a_large_value(self, store: KeyValue, twin: KeyValue) -> None:
        large = "é" * 1_000_000
        await store.write(ONE, [new("k", large)], now=START)
        assert values(await twin.read(ONE, ["k"], now=START)) == {"k": large}

    async def test_writers_of_the_same_keys_in_any_order_end_with_one_of_them(
        self, store: KeyValue, twin: KeyValue
    ) -> None:
        async def write(writer: int) -> Mapping[str, int]:
            keys = random.sample("abcdefgh", 8)
            written = await (store, twin)[writer % 2].write(ONE, [new(key, writer) for key in keys], now=START)
            return {held.key: held.version for held in written}

        done = await asyncio.gather(*(write(writer) for writer in range(16)))
        last = {held.key: held for held in await store.read(ONE, [*"abcdefgh"], now=START)}
        assert len({held.body for held in last.values()}) == 1, "one writer's, all of it"
        for key, held in last.items():
            versions = [each[key] for each in done]
            assert len(set(versions)) == 16
            assert held.version == max(versions)

    async def test_writing_and_removing_at_once_never_goes_back(self, store: KeyValue, twin: KeyValue) -> None:
        ended: list[tuple[int, int]] = []  # of each write in the order in which they ended: when begun, its version
        for round_ in range(5):

            async def work(n: int, round_: int = round_) -> None:
                process = (store, twin)[n % 2]
                for step in range(6):
                    if random.random() < 0.4:
                        await process.remove(*ONE, ["k"], now=START)
                    else:
                        begun = len(ended)
                        (held,) = await process.write(ONE, [new("k", [round_, n, step])], now=START)
                        ended.append((begun, held.version))
                    await process.read(ONE, ["k"], now=START)

            await asyncio.gather(*(work(n) for n in range(6)))
            here, there = [await process.read(ONE, ["k"], now=START) for process in (store, twin)]
            assert here == there
            assert not here or here[0].version <= max(version for _, version in ended)
        assert len({version for _, version in ended}) == len(ended)
        for begun, version in ended:
            assert all(version > before for _, before in ended[:begun]), "what began later has the higher version"

    async def test_a_cancelled_writer_leaves_all_or_nothing(self, store: KeyValue, twin: KeyValue) -> None:
        for n in range(20):
            task = asyncio.create_task(store.write(ONE, [new(key, n) for key in "abc"], now=START))
            await asyncio.sleep(random.random() * 0.003)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert len({held.body for held in await twin.read(ONE, [*"abc"], now=START)}) <= 1
        await store.write(ONE, [new(key, "last") for key in "abc"], now=START)  # one that was cancelled may come later
        for process in (store, twin):
            assert len({held.body for held in await process.read(ONE, [*"abc"], now=START)}) == 1
