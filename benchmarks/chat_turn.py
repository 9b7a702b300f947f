"""What does one turn of a chat cost, side by side with other libraries and with the bare drivers?

A turn: append a user's and an assistant's message of 40 words each, then read the last 20 messages as context, in
sessions that already hold 100, 10,000 and 1,000,000 messages. All contenders use the same PostgreSQL (fsync on) and the
same Redis, one after the other in every round, in an order that rotates. What they read is checked first.

Durability differs, and with it what a turn can cost. The floor, this project, LangChain's PostgresChatMessageHistory,
LangGraph's AsyncPostgresSaver and LlamaIndex's Memory have committed to PostgreSQL when their append returns. LangChain's
RedisChatMessageHistory and LlamaIndex's RedisChatStore have not: they are as durable as Redis, which here writes nothing
to disk, so they never wait for one.

The floor is what the bare drivers need for as much: one statement that inserts two rows, a pipeline that writes them to a
list in Redis, a pipeline that reads the list, and JSON decoding; over asyncpg or over psycopg, whichever is faster.

A contender that reads or rewrites the whole history every turn first has one turn in a process of its own, which is
ended after `LIMIT` seconds (`> 20 s`). If that turn took more than `ALONE` seconds, it is the only one (`once`). What
took too long in a shorter history is `skipped`, and so is LangGraph where its one value would have hundreds of megabytes.
Of short histories there are several, taken in turn, so that they stay as long as they are called.

    python benchmarks/chat_turn.py [--histories 100,10000,1000000] [--rounds 200] [--seconds 10] [--json FILE]

Servers are started for the run unless LLM_MEMORY_TEST_DATABASE_URL and LLM_MEMORY_TEST_REDIS_URL name some; on those a
database `chat_turn` is made anew, and the Redis database is EMPTIED. Needs the dependency groups `test` and `bench`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import psycopg
import redis
from contenders import WINDOW, Cell, Contender, Floor, ThisProject, session, text
from peers import CONTENDERS
from pydantic import SecretStr
from tables import progress, table

from llm_memory_plugins.stores.migrate import migrate

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.servers import GivenPostgres, GivenRedis, Postgres, Proxy, Redis

LIMIT = 20.0  # seconds: of a trial turn, and of all turns of one contender in one history
ALONE = 5.0  # seconds: a trial turn longer than this is not repeated
WARM_UP = 40  # rounds that do not count
SESSIONS = 64
ROUND_TRIP = 0.02
PARTS = ("turn", "store", "read", "hot")


class Servers(NamedTuple):
    """Where the servers are."""

    database_url: str
    redis_url: str


@asynccontextmanager
async def opened(name: str, servers: Servers) -> AsyncGenerator[Contender]:
    """A contender that is connected."""
    contender = CONTENDERS[name]()
    await contender.open(*servers)
    try:
        yield contender
    finally:
        await contender.close()


async def turn(contender: Contender, where: str, first: int) -> dict[str, float]:
    """Seconds of one turn: appending, reading after that, both; and of reading again."""
    begun = time.perf_counter()
    await contender.append(where, first)
    stored = time.perf_counter()
    await contender.read(where)
    read = time.perf_counter()
    await contender.read(where)
    again = time.perf_counter()
    return {"store": stored - begun, "read": read - stored, "turn": read - begun, "hot": again - read}


def trial(name: str, servers: Servers, where: str, first: int, pipe: Connection) -> None:
    """One turn, in a process that can be ended: says when it begins and what it took."""

    async def work() -> None:
        async with opened(name, servers) as contender:
            await contender.append(session("trial"), 0)  # imports and connections are not part of a turn
            await contender.read(session("trial"))
            pipe.send("ready")
            pipe.send(await turn(contender, where, first))

    asyncio.run(work())


def tried(name: str, servers: Servers, where: str, first: int) -> dict[str, float] | None:
    """The trial turn, or None when it took too long."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=trial, args=(name, servers, where, first, theirs))
    process.start()
    theirs.close()
    try:
        ours.recv()
        return ours.recv() if ours.poll(LIMIT) else None
    finally:
        process.kill()
        process.join()


async def prepare(contender: Contender, servers: Servers, size: int, shorter: Cell | None) -> Cell:
    """Fill a history, check what is read of it, and try a turn where it may take long."""
    cell = Cell(size)
    if (shorter and shorter.note and not shorter.seconds) or size > contender.longest:
        cell.note = "skipped"
        return cell
    for copy in range(cell.copies):
        await contender.fill(cell.session(copy), size)
    if contender.whole and size > 1000:
        cell.tried = True
        taken = await asyncio.to_thread(tried, contender.name, servers, *cell.following())
        if taken is None:
            cell.note = f"> {LIMIT:.0f} s"
            return cell
        if taken["turn"] > ALONE:
            cell.note = "once"
            for part, seconds in taken.items():
                cell.seconds[part].append(seconds)
            return cell
    end = size + 2 * cell.turns
    found = await contender.read(cell.session(0))
    if found != [text(n) for n in range(end - WINDOW, end)]:
        raise RuntimeError(f"{contender.name} does not read back the last {WINDOW} messages, but {len(found)}")
    return cell


async def compare(servers: Servers, names: list[str], sizes: list[int], rounds: int) -> dict[str, dict[int, Cell]]:
    """Turns of all contenders in all histories, in rounds."""
    contenders = {}
    cells: dict[str, dict[int, Cell]] = {name: {} for name in names}
    for name in names:
        contender = contenders[name] = CONTENDERS[name]()
        await contender.open(*servers)
        for shorter, size in zip([None, *sizes], sizes, strict=False):
            begun = time.perf_counter()
            cells[name][size] = cell = await prepare(contender, servers, size, cells[name].get(shorter or 0))
            progress(f"{name}: {size:,} messages {cell.note or 'ready'} ({time.perf_counter() - begun:.0f} s)")
    await settle(servers)
    for number in range(-WARM_UP, rounds):
        for size in sizes:
            for name in rotated(names, number):
                cell = cells[name][size]
                if cell.note or sum(cell.seconds["turn"]) + sum(cell.seconds["hot"]) > LIMIT:
                    continue
                if cell.tried and number < -1:  # one turn is warm-up enough where it takes long
                    continue
                taken = await turn(contenders[name], *cell.following())
                for part in PARTS if number >= 0 else ():
                    cell.seconds[part].append(taken[part])
        if number % 50 == 0:
            progress(f"round {number}")
    for contender in contenders.values():
        await contender.close()
        if contender.degraded:
            progress(f"{contender.name}: {contender.degraded} reads said that they had to do without Redis")
    return cells


def rotated(names: list[str], number: int) -> list[str]:
    """A B C, B C A, C A B: who follows whom stays, who is first does not."""
    start = number % len(names)
    return names[start:] + names[:start]


async def settle(servers: Servers) -> None:
    """Have the server do now what it would else do between the rounds, because of the filling."""
    async with await psycopg.AsyncConnection.connect(servers.database_url, autocommit=True) as connection:
        await connection.execute("vacuum analyze")
        await connection.execute("checkpoint")


async def throughput(servers: Servers, names: list[str], seconds: float) -> dict[str, float]:
    """Turns a second with many sessions at once, in two passes."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(SESSIONS))
    turns = dict.fromkeys(names, 0)
    sessions = [session(f"at once {n}") for n in range(SESSIONS)]

    async def talk(contender: Contender, where: str, first: int, deadline: float) -> int:
        number = first
        while time.perf_counter() < deadline:
            await contender.append(where, number)
            await contender.read(where)
            number += 2
        return (number - first) // 2

    for again in (False, True):
        for name in names:
            async with opened(name, servers) as contender:
                contender.in_threads = True
                for where in sessions:
                    if not again:
                        await contender.fill(where, WINDOW)
                    await contender.read(where)
                deadline = time.perf_counter() + seconds / 2
                # Texts repeat, so it does not matter that a second pass goes on from a number used before.
                done = await asyncio.gather(*(talk(contender, where, WINDOW, deadline) for where in sessions))
                turns[name] += sum(done)
    return {name: count / seconds for name, count in turns.items()}


async def far_away(servers: Servers, names: list[str], rounds: int = 10) -> dict[str, dict[str, tuple[float, float]]]:
    """Milliseconds and round trips of each operation when both servers are `ROUND_TRIP` seconds away."""
    answer: dict[str, dict[str, tuple[float, float]]] = {}
    with Proxy(servers.database_url) as database, Proxy(servers.redis_url) as hot:
        for proxy in (database, hot):
            proxy.latency = ROUND_TRIP / 2  # each way
        for name in names:
            where, number, taken = session("far away"), 100, defaultdict(list)
            async with opened(name, servers) as near:
                await near.fill(where, number)
            async with opened(name, Servers(database.url, hot.url)) as contender:

                async def measure(operation: str, work: Callable, *arguments: object, into=taken) -> object:
                    database.reset()
                    hot.reset()
                    begun = time.perf_counter()
                    result = await work(*arguments)
                    spent = 1000 * (time.perf_counter() - begun)
                    into[operation].append((spent, database.round_trips + hot.round_trips))
                    return result

                for round_ in range(-3, rounds):
                    await measure("store", contender.append, where, number)
                    await measure("hot read", contender.read, where)
                    number += 2
                    if round_ < 0:
                        taken.clear()
                for _ in range(3):
                    with redis.Redis.from_url(servers.redis_url) as client:
                        client.flushdb()
                    if not await measure("cold read", contender.read, where):
                        taken["cold read"] = []
                        break
            answer[name] = {
                operation: tuple(statistics.median(column) for column in zip(*values, strict=True)) if values else ()
                for operation, values in taken.items()
            }
    return answer


def show(cells: dict[str, dict[int, Cell]], sizes: list[int]) -> str:
    """Print the tables of a comparison and return which floor was the faster one."""
    turns = {name: row[sizes[0]].p50("turn") or 0.0 for name, row in cells.items()}
    floor = min((name for name in cells if issubclass(CONTENDERS[name], Floor)), key=turns.__getitem__)

    def versus(cell: Cell, other: Cell, part: str, inverse: bool = False) -> str:
        mine, its = cell.p50(part), other.p50(part)
        if mine is None or its is None:
            return "-"
        return f"{its / mine if inverse else mine / its:.2f}x"

    for part, title in (
        ("turn", "durable turn: store + read, ms"),
        ("store", "store, ms"),
        ("hot", "hot read, ms"),
    ):
        columns, rows = [], {name: [] for name in cells}
        for size in sizes:
            columns += [f"{size:,}: p50", "p95", "/ floor", "/ ours"]
            for name, row in cells.items():
                cell = row[size]
                if cell.p50(part) is None:
                    rows[name] += [cell.note, "", "", ""]
                    continue
                tail = "once" if cell.note == "once" else f"{cell.p95(part):.2f}"
                against = [versus(cell, cells[other][size], part) for other in (floor, ThisProject.name)]
                rows[name] += [f"{cell.p50(part):.2f}", tail, *against]
        table(title, columns, rows.items())
    growth = [
        (name, [versus(row[size], row[sizes[0]], part) for part in PARTS for size in sizes[1:]])
        for name, row in cells.items()
    ]
    table(f"growth from {sizes[0]:,} messages", [f"{part} at {size:,}" for part in PARTS for size in sizes[1:]], growth)
    return floor


async def main(options: argparse.Namespace, servers: Servers) -> dict[str, object]:
    """Measure, print, and return the figures."""
    async for _ in migrate(SecretStr(servers.database_url)):
        pass
    names = [name for name in CONTENDERS if not options.only or name in options.only.split(",")]
    with psycopg.connect(servers.database_url) as connection, redis.Redis.from_url(servers.redis_url) as client:
        version, fsync = (connection.execute(f"show {name}").fetchone()[0] for name in ("server_version", "fsync"))
        print(
            f"PostgreSQL {version} (fsync {fsync}), Redis {client.info()['redis_version']}, Python"
            f" {sys.version.split()[0]}, {os.cpu_count()} cores, {options.rounds} rounds"
        )
    for name in names:
        print(f"  {name}: {CONTENDERS[name].durability}")
        async with opened(name, servers) as contender:
            await contender.fill(session("trial"), WINDOW)
    sizes = [int(size) for size in options.histories.split(",")]
    cells = await compare(servers, names, sizes, options.rounds)
    print(f"load average afterwards: {os.getloadavg()[0]:.1f} (other work on the machine makes commits slow for all)")
    floor = show(cells, sizes)
    result: dict[str, object] = {
        "floor": floor,
        "cells": {
            name: {size: {"note": c.note, **{p: (c.p50(p), c.p95(p), len(c.seconds[p])) for p in PARTS}}}
            for name, row in cells.items()
            for size, c in row.items()
        },
    }
    if options.seconds:
        rates = result["turns_per_second"] = await throughput(servers, names, options.seconds)
        rows = [(name, [f"{rate:,.0f}", f"{rate / rates[floor]:.2f}x"]) for name, rate in rates.items()]
        table(f"{SESSIONS} sessions at once", ["turns/s", "/ floor"], rows)
    far = result["far_away"] = await far_away(servers, names)
    operations = ("store", "hot read", "cold read")
    rows = [
        (name, [f"{row[o][0]:.0f} ms, {row[o][1]:.0f} trips" if row[o] else "lost" for o in operations])
        for name, row in far.items()
    ]
    table(f"servers {1000 * ROUND_TRIP:.0f} ms away", operations, rows)
    return result


def run(options: argparse.Namespace) -> None:
    """Start the servers, or take those that are given."""
    database_url, redis_url = (os.environ.pop(f"LLM_MEMORY_TEST_{x}_URL", None) for x in ("DATABASE", "REDIS"))
    with ExitStack() as stack:
        postgres = GivenPostgres(database_url) if database_url else stack.enter_context(Postgres())
        hot = GivenRedis(redis_url) if redis_url else stack.enter_context(Redis())
        with redis.Redis.from_url(hot.url) as client:
            client.flushdb()
        stack.callback(postgres.drop_database, "chat_turn")
        result = asyncio.run(main(options, Servers(postgres.create_database("chat_turn"), hot.url)))
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=1), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--histories", default="100,10000,1000000", help="lengths, ascending")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=10.0, help="of the run with many sessions; 0: none")
    parser.add_argument("--only", help="names of contenders, separated by commas")
    parser.add_argument("--json", help="a file for the figures")
    run(parser.parse_args())
