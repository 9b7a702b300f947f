"""What does working memory cost, side by side with bare Redis commands and with LangGraph's store?

Notes of 40 words with an importance, in namespaces that are full, so that each store evicts. Measured are

* store, get, and a context of the whole namespace, at capacity 100: `WorkingMemory` in Redis beside bare redis-py
  pipelines on the same server, and `WorkingMemory` in process beside LangGraph's `InMemoryStore`. The latter has neither
  a capacity nor a life span by the number of its items, and nothing to weigh them by. The floor stores a note with its
  rank and time, reads its number of notes, and takes the lowest out: two pipelines, and another process may come between.
  Its get counts the use and sets the rank. Its context is all notes, decoded and joined;
* round trips of each of these, counted at the server's side of a proxy;
* many at once: 64 tasks that store and get;
* a store that evicts, at capacity 10,000 against 100, by policy. To hold: 1.50x.

Contenders take turns within each round, and a ratio is of the same run.

    python benchmarks/working.py [--rounds 400] [--seconds 3] [--quick] [--json FILE]

Redis is started for the run unless LLM_MEMORY_TEST_REDIS_URL names one, where nothing of another user is touched. Needs
the dependency group `test`; LangGraph needs `bench`.
"""

# ruff: noqa: D102 - methods are described once, in `Contender`

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import sys
import time
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import ExitStack, asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import redis.asyncio
from contenders import WORDS
from tables import progress, table

from llm_memory_plugins import WorkingMemory
from llm_memory_plugins.working_items import EvictionPolicy

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.servers import GivenRedis, Proxy, Redis

CAPACITY, LARGE = 100, 10_000
AT_ONCE = 64
WARM_UP = 30
VERBS = ("store", "get", "context")
USER = f"bench-{uuid.uuid4().hex}"


def note(n: int) -> str:
    """Forty words."""
    return " ".join(random.Random(n).choices(WORDS, k=39)) + f" {n}"


class Contender:
    """A full namespace of notes. `newest` is the last one that is surely there."""

    next = newest = 0

    async def fill(self) -> None:
        """Store as many notes as the capacity."""
        for _ in range(CAPACITY):
            await self.store()

    async def store(self) -> None:
        """A new note; the one worth least, or the oldest, goes."""
        raise NotImplementedError

    async def get(self) -> None:
        """The newest note, decoded."""
        raise NotImplementedError

    async def context(self) -> int:
        """All notes as text; returns how many there are."""
        raise NotImplementedError

    async def close(self) -> None:
        """Leave nothing behind."""


class ThisProject(Contender):
    """`WorkingMemory`, in Redis or in process."""

    def __init__(self, url: str | None, *, capacity: int = CAPACITY, policy: str = "importance") -> None:
        where = {"redis_url": url, "redis_timeout": 5.0} if url else {}
        self.memory = WorkingMemory({**where, "capacity_limit": capacity, "eviction_policy": policy})
        self.space = f"{capacity}-{policy}"
        self.capacity = capacity

    async def fill(self) -> None:
        while self.next < self.capacity:
            many = range(self.next, min(self.capacity, self.next + 500))
            await self.memory.store([self._item(n) for n in many])
            self.next, self.newest = many.stop, many.stop - 1

    def _item(self, n: int) -> dict[str, Any]:
        return {
            "namespace": self.space,
            "user_id": USER,
            "key": f"k{n}",
            "content": note(n),
            "importance": (1 + n % 7) / 10,
        }

    async def store(self) -> None:
        n, self.next = self.next, self.next + 1
        stored = await self.memory.store(self._item(n))
        if len(stored.evicted) != 1:
            raise RuntimeError("a store into a full namespace has to evict one")
        self.newest = n

    async def get(self) -> None:
        await self.memory.get(self.space, f"k{self.newest}", user_id=USER)

    async def context(self) -> int:
        return len((await self.memory.get_context({"namespace": self.space, "user_id": USER})).pieces)

    async def close(self) -> None:
        await self.memory.forget(user_id=USER)
        await self.memory.close()


class Floor(Contender):
    """Bare redis-py: what a program does that needs no more than this."""

    def __init__(self, url: str) -> None:
        self.client = redis.asyncio.from_url(url)
        stem = f"floor:{{{USER}}}"
        self.notes, self.ranks, self.uses = f"{stem}:notes", f"{stem}:ranks", f"{stem}:uses"

    async def store(self) -> None:
        n, self.next = self.next, self.next + 1
        text = json.dumps({"content": note(n), "importance": (1 + n % 7) / 10})
        pipe = self.client.pipeline(transaction=False)
        pipe.hset(self.notes, f"k{n}", text)
        pipe.zadd(self.ranks, {f"k{n}": time.time() / 600})
        for key in (self.notes, self.ranks, self.uses):
            pipe.expire(key, 1800)
        pipe.zrange(self.ranks, 0, -1 - CAPACITY)
        gone = (await pipe.execute())[-1]
        if gone:
            pipe = self.client.pipeline(transaction=False)
            pipe.hdel(self.notes, *gone)
            pipe.hdel(self.uses, *gone)
            pipe.zrem(self.ranks, *gone)
            await pipe.execute()
        self.newest = n

    async def get(self) -> None:
        key = f"k{self.newest}"
        pipe = self.client.pipeline(transaction=False)
        pipe.hget(self.notes, key)
        pipe.hincrby(self.uses, key, 1)
        pipe.zadd(self.ranks, {key: time.time() / 600}, xx=True)
        json.loads((await pipe.execute())[0])

    async def context(self) -> int:
        notes = [json.loads(text)["content"] for text in await self.client.hvals(self.notes)]
        return "".join(f"- {text}\n" for text in notes).count("\n")

    async def close(self) -> None:
        await self.client.delete(self.notes, self.ranks, self.uses)
        await self.client.aclose()


class LangGraph(Contender):
    """`langgraph.store.memory.InMemoryStore`, which keeps everything."""

    def __init__(self) -> None:
        from langgraph.store.memory import InMemoryStore

        self.store_ = InMemoryStore()
        self.space = (USER, "notes")

    async def store(self) -> None:
        n, self.next = self.next, self.next + 1
        value = {"content": note(n), "importance": (1 + n % 7) / 10}
        await self.store_.aput(self.space, f"k{n}", value)
        if n >= CAPACITY:  # else it would not stay the same size
            await self.store_.adelete(self.space, f"k{n - CAPACITY}")
        self.newest = n

    async def get(self) -> None:
        await self.store_.aget(self.space, f"k{self.newest}")

    async def context(self) -> int:
        found = await self.store_.asearch(self.space, limit=CAPACITY)
        return "".join(f"- {item.value['content']}\n" for item in found).count("\n")


IN_REDIS, FLOOR = "WorkingMemory, Redis", "redis-py pipelines"
IN_PROCESS, LANGGRAPH = "WorkingMemory, in process", "LangGraph InMemoryStore"


def contenders(url: str) -> dict[str, Callable[[], Contender]]:
    """Those whose packages are there."""
    made: dict[str, Callable[[], Contender]] = {IN_REDIS: lambda: ThisProject(url), FLOOR: lambda: Floor(url)}
    made[IN_PROCESS] = lambda: ThisProject(None)
    if find_spec("langgraph") is not None:
        made[LANGGRAPH] = LangGraph
    return made


@asynccontextmanager
async def filled(make: Callable[[], Contender]) -> AsyncGenerator[Contender]:
    """A contender with a full namespace."""
    contender = make()
    try:
        await contender.fill()
        yield contender
    finally:
        await contender.close()


async def timed(work: Callable[[], Any]) -> float:
    """Milliseconds."""
    begun = time.perf_counter()
    await work()
    return 1000 * (time.perf_counter() - begun)


async def verbs(url: str, rounds: int) -> dict[str, dict[str, float]]:
    """Median milliseconds of each verb, by contender."""
    opened = {name: make() for name, make in contenders(url).items()}
    taken: dict[str, dict[str, list[float]]] = {name: {verb: [] for verb in VERBS} for name in opened}
    for name, contender in opened.items():
        await contender.fill()
        if await contender.context() != CAPACITY:
            raise RuntimeError(f"{name} does not show what it holds")
    for number in range(-WARM_UP, rounds):
        for verb in VERBS:
            for name in rotated([*opened], number):
                milliseconds = await timed(getattr(opened[name], verb))
                if number >= 0:
                    taken[name][verb].append(milliseconds)
    for contender in opened.values():
        await contender.close()
    return {name: {verb: statistics.median(each[verb]) for verb in VERBS} for name, each in taken.items()}


def rotated(names: list[str], number: int) -> list[str]:
    """A B C, B C A, C A B: who follows whom stays, who is first does not."""
    start = number % len(names)
    return names[start:] + names[:start]


async def round_trips(url: str) -> dict[str, dict[str, int]]:
    """Of each verb, by contender."""
    found: dict[str, dict[str, int]] = {}
    with Proxy(url) as proxy:
        for name in (IN_REDIS, FLOOR):
            async with filled(contenders(proxy.url)[name]) as contender:
                found[name] = {}
                for verb in VERBS:
                    await getattr(contender, verb)()  # the scripts are known and connections open
                    proxy.reset()
                    await getattr(contender, verb)()
                    found[name][verb] = proxy.round_trips
    return found


async def throughput(url: str, seconds: float) -> dict[str, float]:
    """Stores and gets a second, half of each, by contender."""
    done: dict[str, float] = {}
    for name, make in contenders(url).items():
        async with filled(make) as contender:
            deadline = time.perf_counter() + seconds

            async def work(contender: Contender = contender, deadline: float = deadline) -> int:
                count = 0
                while time.perf_counter() < deadline:
                    await contender.store()
                    await contender.get()
                    count += 2
                return count

            done[name] = sum(await asyncio.gather(*(work() for _ in range(AT_ONCE)))) / seconds
    return done


async def evicting(url: str, rounds: int) -> dict[str, dict[str, tuple[float, float]]]:
    """Median milliseconds of a store that evicts, at both capacities, by place and policy."""
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for name, where in ((IN_REDIS, url), (IN_PROCESS, None)):
        found[name] = {}
        for policy in get_args(EvictionPolicy):
            sizes = [ThisProject(where, capacity=size, policy=policy) for size in (CAPACITY, LARGE)]
            for each in sizes:
                await each.fill()
            taken: list[list[float]] = [[], []]
            for number in range(-WARM_UP, rounds):
                for place in (0, 1) if number % 2 else (1, 0):
                    milliseconds = await timed(sizes[place].store)
                    if number >= 0:
                        taken[place].append(milliseconds)
            small, large = map(statistics.median, taken)
            found[name][policy] = (small, large)
            for each in sizes:
                await each.close()
            progress(f"{name}, {policy}: {small:.3f} and {large:.3f} ms")
    return found


async def main(options: argparse.Namespace, url: str) -> dict[str, Any]:
    """Measure, print, and return the figures."""
    client = redis.asyncio.from_url(url)
    version = (await client.info("server"))["redis_version"]
    await client.aclose()
    print(f"Redis {version}, Python {sys.version.split()[0]}, {os.cpu_count()} cores, {options.rounds} rounds")
    taken = await verbs(url, options.rounds)
    if LANGGRAPH not in taken:
        progress(f"{LANGGRAPH}: not installed")
    against = {IN_REDIS: FLOOR, IN_PROCESS: LANGGRAPH if LANGGRAPH in taken else IN_PROCESS}
    columns = [column for verb in VERBS for column in (f"{verb}, ms", "ops/s", "/ floor")]
    rows = []
    for name, each in taken.items():
        floor = taken[against.get(name, name)]
        cells = [
            cell
            for verb in VERBS
            for cell in (f"{each[verb]:.3f}", f"{1000 / each[verb]:,.0f}", f"{each[verb] / floor[verb]:.2f}x")
        ]
        rows.append((name, cells))
    table(f"one at a time, {CAPACITY} notes", columns, rows)
    trips = await round_trips(url)
    table("round trips", VERBS, [(name, [str(each[verb]) for verb in VERBS]) for name, each in trips.items()])
    many = await throughput(url, options.seconds)
    table(f"{AT_ONCE} at once", ["store and get, ops/s"], [(name, [f"{each:,.0f}"]) for name, each in many.items()])
    evictions = await evicting(url, options.rounds)
    print(f"load average afterwards: {os.getloadavg()[0]:.1f}")
    table(
        "a store that evicts, ms",
        [f"at {CAPACITY:,}", f"at {LARGE:,}", "ratio"],
        [
            (f"{name}, {policy}", [f"{small:.3f}", f"{large:.3f}", f"{large / small:.2f}x"])
            for name, policies in evictions.items()
            for policy, (small, large) in policies.items()
        ],
    )
    worst = max(large / small for policies in evictions.values() for small, large in policies.values())
    print(f"worst ratio: {worst:.2f}x (to hold: 1.50x)")
    return {"verbs": taken, "round_trips": trips, "at_once": many, "evicting": evictions, "worst": worst}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=400)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each contender, with many at once")
    parser.add_argument("--quick", action="store_true", help="see that it runs")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if given.quick:
        given.rounds, given.seconds = 60, 0.5
    with ExitStack() as stack:
        named = os.environ.get("LLM_MEMORY_TEST_REDIS_URL")
        server = GivenRedis(named) if named else stack.enter_context(Redis())
        figures = asyncio.run(main(given, server.url))
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1))
