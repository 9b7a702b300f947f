"""Does reading cost the window, or the history?

Sessions of 100, 10,000 and 1,000,000 messages of the same kind, and `get_context` at equal window over each, in turn and
many times, in one process. Printed are medians and their ratio to the shortest session's. A fresh engine's first read
(nothing cached in the process) is measured too.

    python benchmarks/growth.py [--largest 1000000] [--quick]
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

from contenders import WORDS

from llm_memory_plugins import ConversationBufferMemory
from llm_memory_plugins.stores.sqlite.database import queries

ROUNDS = 300
COLD_ROUNDS = 30
WINDOW = 10
START = datetime(2026, 1, 1, tzinfo=UTC)


def say(n: int, rng: random.Random) -> str:
    """Some words."""
    return " ".join(rng.choices(WORDS, k=12)) + f" {n}"


async def grow(memory: ConversationBufferMemory, session: str, size: int) -> None:
    """A session of `size` messages: in bulk, straight into the file, but for the last 100."""
    rng = random.Random(0)
    first = {"session_id": session, "role": "user", "content": say(0, rng), "created_at": START}
    await memory.store(first)
    database = memory._ports.backends["sqlite"]
    bulk = max(0, size - 101)
    insert = queries("messages")["insert"]

    def rows():
        at = int(START.timestamp() * 1_000_000)
        for n in range(bulk):
            yield {
                "pk": pk, "seq": n + 2, "id": f"b{n}", "role": ("assistant", "user")[n % 2], "name": None,
                "content": say(n, rng), "created_at": at + n, "tokens": 20, "tokenizer": "estimate",
                "tokens_ever": 20 * (n + 2), "extra": None,
            }  # fmt: skip

    pk = (await memory.get_session_stats(session)).epoch

    def fill(connection) -> None:
        connection.executemany(insert, rows())
        connection.execute(
            "update sessions set last_seq = ?, message_count = ?, turn_count = ?, tokens = ?, tokens_ever = ? where pk = ?",
            (bulk + 1, bulk + 1, bulk // 2 + 1, 20 * (bulk + 1), 20 * (bulk + 1), pk),
        )

    await database.write(fill)
    rest = size - 1 - bulk
    await memory.store(
        [
            {
                "session_id": session,
                "role": ("user", "assistant")[n % 2],
                "content": say(n, rng),
                "created_at": START + timedelta(days=1, seconds=n),
            }
            for n in range(rest)
        ]
    )


async def measure(read: Callable[[str], Awaitable[object]], sessions: list[str], rounds: int) -> dict[str, float]:
    """Median milliseconds a read, sessions in turn so that all see the same machine."""
    taken: dict[str, list[float]] = {session: [] for session in sessions}
    for _ in range(rounds):
        for session in sessions:
            begun = time.perf_counter()
            await read(session)
            taken[session].append(1000 * (time.perf_counter() - begun))
    return {session: statistics.median(times) for session, times in taken.items()}


async def main(largest: int, *, quick: bool) -> None:
    """Build, read, print."""
    rounds, cold_rounds = (5, 5) if quick else (ROUNDS, COLD_ROUNDS)
    sizes = sorted({100, min(10_000, largest), largest})
    print(f"get_context at equal window, ms (median), ratio to {sizes[0]} messages")
    print(f"{'window':26}" + "".join(f"{size:>16,}" for size in sizes))
    with tempfile.TemporaryDirectory() as folder:
        config = {"database_url": f"sqlite:///{folder}/memory.sqlite3", "tokenizer": "estimate"}
        names = [str(size) for size in sizes]
        async with ConversationBufferMemory(config) as memory:
            for size in sizes:
                await grow(memory, str(size), size)
        worst = 0.0
        for kind, size in (("turns", WINDOW), ("tokens", 400), ("time", 20)):
            settings = {**config, "window_type": kind, "window_size": size}
            now = START + timedelta(days=1, seconds=100)
            async with ConversationBufferMemory(settings, clock=lambda now=now: now) as memory:
                warm = await measure(memory.get_context, names, rounds)

                async def cold(session: str, log=memory._ports.log, memory=memory) -> None:
                    await log._hot.drop(await log.sessions())
                    await memory.get_context(session)

                unwarmed = await measure(cold, names, cold_rounds)
            for label, medians in ((f"{size} {kind}, hot", warm), (f"{size} {kind}, not cached", unwarmed)):
                ratios = [medians[name] / medians[names[0]] for name in names]
                worst = max(worst, *ratios)
                print(
                    f"{label:26}"
                    + "".join(f"{medians[n]:>9.3f} {r:>5.2f}x" for n, r in zip(names, ratios, strict=True))
                )
    print(f"worst ratio: {worst:.2f}x (to hold: 1.50x)")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--largest", type=int, default=1_000_000)
    parser.add_argument("--quick", action="store_true", help="few rounds over short sessions, to see that it works")
    options = parser.parse_args()
    asyncio.run(main(min(1000, options.largest) if options.quick else options.largest, quick=options.quick))
