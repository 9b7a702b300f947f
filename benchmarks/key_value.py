"""What does a value by its key cost, side by side with other stores and with the bare drivers?

Values are small JSON objects, as settings are, a thousand of them in a namespace. Measured are

* get, set, and the same of fifty keys in one call, one after the other, and gets of 64 tasks at once;
* round trips to PostgreSQL and to Redis of each, counted by proxies;
* a hot get against HGET and `json.loads` of bare redis-py, the two in turn. To hold: 1.50x.

Durability differs, and with it what a set can cost. This project, the floor that writes through, and LangGraph's
AsyncPostgresStore have committed to PostgreSQL (fsync on), or to SQLite, when a set returns. Bare Redis and LlamaIndex's
RedisKVStore are as durable as Redis, which here writes nothing to disk; LangGraph's InMemoryStore is gone with its process.
Contenders take turns within each round, in an order that rotates, and what they read is checked.

    python benchmarks/key_value.py [--rounds 300] [--quick] [--json FILE]

Servers are started for the run unless LLM_MEMORY_TEST_DATABASE_URL and LLM_MEMORY_TEST_REDIS_URL name some; on those a
database `key_value` is made anew, and in Redis keys that begin with `bench-` are left behind for an hour. Needs the
dependency group `test`; the peers need `bench`, and are left out, by name, where they are not installed.
"""

# ruff: noqa: S101 - what is measured is checked

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from key_value_contenders import CONTENDERS, BareRedis, Contender, OnRedisAndPostgres, Servers, value
from pydantic import SecretStr
from tables import progress, table

from llm_memory_plugins.stores.migrate import migrate

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.servers import GivenPostgres, GivenRedis, Postgres, Proxy, Redis

KEYS = 1000
MANY = 50
AT_ONCE = 64
WARM_UP = 20
VERBS = ("get", "set", "mget", "mset")


@asynccontextmanager
async def opened(servers: Servers, *, tell: bool = True) -> AsyncGenerator[list[Contender]]:
    """Those that are installed, with all their values."""
    async with AsyncExitStack() as stack:
        ready = []
        for kind in CONTENDERS:
            contender = kind()
            try:
                await contender.open(servers, stack)
            except ImportError as error:
                if tell:
                    print(f"{contender.name}: left out, {error.name or error} is not installed")
                continue
            for n in range(KEYS):
                await contender.set(n, value(n))
            if not tell or await contender.get(7) == value(7):
                ready.append(contender)
        yield ready


async def timed(work: Awaitable[object]) -> float:
    """Microseconds."""
    begun = time.perf_counter()
    await work
    return 1e6 * (time.perf_counter() - begun)


async def measure(contenders: list[Contender], rounds: int) -> dict[str, dict[str, float]]:
    """Median microseconds of each verb, contenders in turn."""
    taken: dict[str, dict[str, list[float]]] = {each.name: defaultdict(list) for each in contenders}
    for number in range(WARM_UP + rounds):
        keep = number >= WARM_UP
        turn = number % len(contenders)
        for contender in [*contenders[turn:], *contenders[:turn]]:
            n, some = number % KEYS, [(number + i) % KEYS for i in range(MANY)]
            works = {
                "get": contender.get(n),
                "set": contender.set(n, value(n)),
                "mget": contender.mget and contender.mget(some),
                "mset": contender.mset and contender.mset({i: value(i) for i in some}),
            }
            for verb, work in works.items():
                if work is not None:
                    micros = await timed(work)
                    if keep:
                        taken[contender.name][verb].append(micros)
    return {name: {verb: statistics.median(all_) for verb, all_ in verbs.items()} for name, verbs in taken.items()}


async def hot(contenders: list[Contender], reads: int) -> float:
    """How much longer a hot get takes than the floor's, by the medians of the two in turn."""
    pair = [next(each for each in contenders if type(each) is kind) for kind in (BareRedis, OnRedisAndPostgres)]
    taken: list[list[float]] = [[], []]
    for n in range(reads):
        for contender, times in zip(pair, taken, strict=True):
            times.append(await timed(contender.get(n % KEYS)))
    floor, ours = map(statistics.median, taken)
    return ours / floor


async def at_once(contenders: list[Contender], reads: int) -> dict[str, float]:
    """Gets a second, of many tasks together."""
    rates = {}
    for contender in contenders:

        async def task(first: int, contender: Contender = contender) -> None:
            for i in range(reads // AT_ONCE):
                assert await contender.get((first + i) % KEYS) is not None

        begun = time.perf_counter()
        await asyncio.gather(*(task(first) for first in range(AT_ONCE)))
        rates[contender.name] = reads // AT_ONCE * AT_ONCE / (time.perf_counter() - begun)
    return rates


async def round_trips(servers: Servers) -> dict[str, dict[str, tuple[int, int]]]:
    """To PostgreSQL and to Redis, of each verb."""
    with Proxy(servers.database_url) as database, Proxy(servers.redis_url) as hot:
        trips: dict[str, dict[str, tuple[int, int]]] = defaultdict(dict)
        async with opened(Servers(database.url, hot.url, servers.folder), tell=False) as contenders:
            some = list(range(MANY))
            for contender in contenders:
                for warm in (True, True, False):
                    for verb in VERBS:
                        call = getattr(contender, verb)
                        if call is None:
                            continue
                        arguments = {
                            "get": (7,), "set": (7, value(7)), "mget": (some,), "mset": ({n: value(n) for n in some},),
                        }[verb]  # fmt: skip
                        database.reset()
                        hot.reset()
                        await call(*arguments)
                        if not warm:
                            trips[contender.name][verb] = database.round_trips, hot.round_trips
        return trips


async def run(servers: Servers, rounds: int, reads: int) -> dict[str, Any]:
    """All measurements."""
    async with opened(servers) as contenders:
        progress(f"{len(contenders)} contenders, {rounds} rounds")
        micros = await measure(contenders, rounds)
        progress("hot gets")
        ratio = await hot(contenders, 10 * rounds)
        progress("many at once")
        rates = await at_once(contenders, reads)
        durability = {each.name: each.durability for each in contenders}
    progress("round trips")
    return {
        "micros": micros,
        "hot": ratio,
        "gets_a_second": rates,
        "round_trips": await round_trips(servers),
        "kept": durability,
    }


def show(found: dict[str, Any]) -> None:
    """The tables."""
    micros, trips = found["micros"], found["round_trips"]
    columns = ["get", "set", f"get of {MANY}", f"set of {MANY}", "gets/s, 64 tasks", "survives in"]
    rows = [
        (
            name,
            [
                *(f"{verbs[verb]:,.0f}" if verb in verbs else "-" for verb in VERBS),
                f"{found['gets_a_second'][name]:,.0f}",
                found["kept"][name],
            ],
        )
        for name, verbs in micros.items()
    ]
    table("microseconds (median)", columns, rows)
    told = [
        (name, ["-" if verb not in verbs else "{}+{}".format(*verbs[verb]) for verb in VERBS])
        for name, verbs in trips.items()
    ]
    table("round trips: PostgreSQL + Redis", VERBS, told)
    print(f"\nhot get against bare redis-py: {found['hot']:.2f}x (to hold: 1.50x)")


async def main(rounds: int, reads: int, json_file: str | None) -> None:
    """Start what is needed, measure, print."""
    database_url, redis_url = (os.environ.get(f"LLM_MEMORY_TEST_{name}_URL") for name in ("DATABASE", "REDIS"))
    with ExitStack() as stack:
        postgres = GivenPostgres(database_url) if database_url else stack.enter_context(Postgres())
        server = GivenRedis(redis_url) if redis_url else stack.enter_context(Redis())
        url = postgres.create_database("key_value")
        async for _ in migrate(SecretStr(url)):
            pass
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        found = await run(Servers(url, server.url, folder), rounds, reads)
    show(found)
    if json_file:
        await asyncio.to_thread(Path(json_file).write_text, json.dumps(found, indent=1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--quick", action="store_true", help="a tenth of it, to see that it runs")
    parser.add_argument("--json", metavar="FILE")
    given = parser.parse_args()
    asyncio.run(main(given.rounds // 10 if given.quick else given.rounds, 640 if given.quick else 12_800, given.json))
