"""What every `WorkingSet` must hold over time: many at once, cancelled, and in any order."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, get_args

import pytest

from llm_memory_plugins.errors import InvalidInput
from llm_memory_plugins.key_values import Space
from llm_memory_plugins.ports import WorkingSet
from llm_memory_plugins.testing.working_model import SPACE, Beside, change, draft
from llm_memory_plugins.working_items import Draft, EvictionPolicy, Rules

POLICIES: tuple[EvictionPolicy, ...] = get_args(EvictionPolicy)
Make = Callable[[Rules], WorkingSet]
BRIEF = 0.05  # seconds: a short life


def rules(capacity: int = 10, policy: EvictionPolicy = "lru", half_life: float = 600.0) -> Rules:
    """Rules of a namespace."""
    return Rules(capacity, policy, half_life)


async def held(items: WorkingSet, space: Space = SPACE) -> list[str]:
    """The ids of a namespace, in the order of storing."""
    return [item.id for item in (await items.read(space)).items]


class WorkingHistorySuite:
    """Races, cancellation, and random walks beside the model.

    Attributes:
        steps: Of a walk.
    """

    steps = 150

    @pytest.fixture
    async def make(self) -> AsyncIterator[Make]:
        """Makes an empty store with the given rules; of several made in a test, the last one is used. Override."""
        raise NotImplementedError("give the suite a store")
        yield

    @pytest.fixture
    def wait(self) -> Callable[[float], Awaitable[None]]:
        """Lets so many seconds go by for the store. Override where its clock is not the real one."""
        return asyncio.sleep

    @pytest.fixture
    def items(self, make: Make) -> WorkingSet:
        """Room for ten."""
        return make(rules())

    async def test_a_hundred_writers_never_exceed_the_capacity(self, make: Make) -> None:
        items = make(rules(7, "importance"))
        sizes: list[int] = []
        evicted: list[str] = []

        async def write(writer: int) -> None:
            for n in range(3):
                fields: dict[str, Any] = {"importance": random.random()}
                if n and writer % 3 == 0:
                    fields["parent_id"] = f"{writer}-{n - 1}"
                try:
                    evicted.extend((await items.put(SPACE, [draft(f"{writer}-{n}", **fields)])).evicted)
                except InvalidInput:  # its parent went already
                    evicted.append(f"{writer}-{n}")
                snapshot = await items.read(SPACE)
                sizes.append(len(snapshot.items))
                there = {item.id for item in snapshot.items}
                assert all(item.parent_id in {None, *there} for item in snapshot.items)

        await asyncio.gather(*(write(writer) for writer in range(100)))
        assert max(sizes) == 7
        left = await held(items)
        assert len(left) == 7
        assert sorted([*evicted, *left]) == sorted(f"{writer}-{n}" for writer in range(100) for n in range(3))

    async def test_who_is_cancelled_has_stored_all_or_nothing(self, items: WorkingSet) -> None:
        for n in range(20):
            batch = [draft(f"{n}"), *(draft(f"{n}-{i}", parent_id=f"{n}") for i in range(2))]
            task = asyncio.create_task(items.put(SPACE, batch))
            await asyncio.sleep(0.0002 * (n % 5))
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            there = [key for key in await held(items) if key.split("-")[0] == str(n)]
            assert there in ([], [f"{n}", f"{n}-0", f"{n}-1"])
        assert len(await held(items)) <= 10
        await items.put(SPACE, [draft("after")])
        assert "after" in await held(items)

    @pytest.mark.parametrize("policy", POLICIES)
    @pytest.mark.parametrize("seed", range(2))
    async def test_in_any_order_it_is_as_the_model_says(
        self, make: Make, wait: Any, policy: EvictionPolicy, seed: int
    ) -> None:
        dice = random.Random(int(os.environ.get("LLM_MEMORY_TEST_SEED", "0")) + seed)
        chosen = rules(dice.choice((3, 6, 9)), policy, half_life=dice.choice((0.05, 600.0)))
        beside = Beside(make(chosen), chosen, wait)
        names = [f"k{n}" for n in range(14)]

        def one() -> Draft:
            fields: dict[str, Any] = {"importance": dice.choice((0.0, 0.3, 0.5, 1.0))}
            if dice.random() < 0.5:
                fields["parent_id"] = dice.choice(names)
            fields["status"] = dice.choice(("open", "done", "abandoned"))
            if dice.random() < 0.2:
                return change(dice.choice(names), **fields)
            return draft(dice.choice(names), dice.random(), **fields)

        for _ in range(self.steps):
            act = dice.random()
            if act < 0.5:
                await beside.put(one())
            elif act < 0.6:
                await beside.put(*{each.id: each for each in (one(), one(), one())}.values())
            elif act < 0.8:
                await beside.use(*(dice.choice(names) for _ in range(dice.randint(1, 3))))
            elif act < 0.93:
                await beside.delete(dice.choice(names), cascade=dice.random() < 0.5)
            elif act < 0.97:
                brief, long = dice.sample(names, 2)
                await beside.put(draft(brief, ttl=BRIEF), draft(long, parent_id=brief))
                await beside.wait(1.2 * BRIEF)
            else:
                await beside.clear()
                await beside.put(draft("first"))
