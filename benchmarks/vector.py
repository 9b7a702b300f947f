"""What does vector memory cost, side by side with the bare floors and with other libraries?

Texts of 50 words, 256 dimensions, one offline embedder for all. Measured are

* a question to a tenant of 1,000, 10,000 and 100,000 texts, without a filter and with one that lets one text in a
  hundred pass: `VectorDatabaseMemory.search` as a whole, and its store's part alone. On SQLite the floor is one numpy
  product of all vectors with the question's, which are in memory; on PostgreSQL one exact pgvector query over a plain
  table, under the same role and row-level security. Both are handed the embedded question and rank nothing else;
* storing 10,000 texts in an empty tenant: the floors embed the same texts and write id, user, content, metadata and
  vector into a plain table, by executemany or a binary COPY. They count no words, so they cannot find any;
* how many of the nearest 10 and 200 texts are among the candidates of the store, in tenants of all sizes.

Contenders take turns within each round, and the floor of a ratio is of the same run. A peer is asked for `LIMIT`
seconds at most, and stores once. One that is not installed is named.

    python benchmarks/vector.py [--rows 100000] [--rounds 50] [--stores sqlite,postgresql] [--no-peers]
        [--quick] [--json FILE]

PostgreSQL is started for the run unless LLM_MEMORY_TEST_DATABASE_URL names one; on that a database `vector` is made
anew. Needs the dependency group `test`; peers need `bench`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import numpy as np
from pydantic import SecretStr
from tables import progress, table
from vector_contenders import (
    BEST,
    CANDIDATES,
    LOT,
    LOTS,
    Cell,
    Contender,
    HnswFloor,
    NumpyFloor,
    PgvectorFloor,
    StoreAlone,
    ThisProject,
    documents,
    embed,
    questions,
)
from vector_peers import ON_POSTGRESQL, ON_SQLITE

sys.path.insert(0, str(Path(__file__).parents[1]))

LIMIT = 20.0  # seconds of a contender at one size
WARM_UP = 5  # rounds that do not count
INGEST = 10_000
INGEST_ROUNDS = 3
PROBED = 20  # questions for the recall
TO_HOLD = {"sqlite": (3.0, None), "postgresql": (2.0, 1.3)}  # times the floor: a question, storing
FILTERS = {"": None, "filtered ": LOT}


class Texts:
    """What all contenders are given: texts with their vectors, and questions with theirs."""

    def __init__(self, rows: int, asked: int) -> None:
        self.texts = documents(rows)
        self.vectors = np.concatenate([embed(self.texts[at : at + 1000]) for at in range(0, rows, 1000)])
        self.questions = questions(self.texts, asked)
        self.asked = embed(self.questions)

    def recall(self, found: Sequence[int], question: int, size: int, lot: int | None, best: int) -> float | None:
        """The share of the `best` nearest of the first `size` texts that was found; None where there are none."""
        cosines = self.vectors[:size] @ self.asked[question]
        allowed = np.arange(size) % LOTS == lot if lot is not None else np.full(size, True)
        best = min(best, int(allowed.sum()))
        if not best:
            return None
        least = np.sort(cosines[allowed])[-best] - 1e-6  # of equally near ones any will do
        return sum(bool(allowed[n]) and cosines[n] >= least for n in found[:best]) / best


@asynccontextmanager
async def opened(contenders: Sequence[Contender], place: str) -> AsyncGenerator[list[Contender]]:
    """Those that could be opened; of the others `note` says why not."""
    ready: list[Contender] = []
    try:
        for contender in contenders:
            try:
                await contender.open(place)
            except ImportError as error:
                contender.note = f"not installed ({error.name or error})"
            else:
                ready.append(contender)
        yield ready
    finally:
        for contender in ready:
            await contender.close()


def rotated(contenders: list[Contender], number: int) -> list[Contender]:
    """A B C, B C A, C A B: who follows whom stays, who is first does not."""
    start = number % len(contenders)
    return contenders[start:] + contenders[:start]


async def ingest(contenders: list[Contender], texts: list[str], rounds: int) -> dict[str, list[float]]:
    """Seconds each takes to embed and store the texts, in a tenant of their own."""
    taken: dict[str, list[float]] = {contender.name: [] for contender in contenders if contender.durability}
    for contender in contenders:
        if contender.durability:
            await contender.ingest("warm", texts[:100])
    for number in range(rounds):
        for contender in rotated(contenders, number):
            if contender.durability and not (contender.peer and number):
                begun = time.perf_counter()
                await contender.ingest(f"ingest{number}", texts)
                taken[contender.name].append(time.perf_counter() - begun)
                progress(f"{contender.name}: stored {len(texts):,} texts in {taken[contender.name][-1]:.1f} s")
    return taken


async def query(contenders: list[Contender], sizes: list[int], texts: Texts, rounds: int) -> dict[str, dict[int, Cell]]:
    """Questions to tenants of all sizes, without and with a filter, in rounds."""
    cells = {contender.name: {size: Cell() for size in sizes} for contender in contenders}
    for number in range(-WARM_UP, rounds):
        asked = (number + WARM_UP) % len(texts.questions)
        for size in sizes:
            for contender in rotated(contenders, number):
                cell = cells[contender.name][size]
                for part, lot in FILTERS.items():
                    if cell.spent > LIMIT or (cell.slow and number < 0):
                        continue
                    prepared = contender.prepare(texts.questions[asked], texts.asked[asked])
                    begun = time.perf_counter()
                    answer = await contender.query(str(size), prepared, lot)
                    cell.took(part, time.perf_counter() - begun, counts=number >= 0)
                    if contender.dense and number >= 0:
                        found = contender.numbers(answer)
                        cell.recall[part].append(texts.recall(found, asked, size, lot, BEST))
        if number % 10 == 0:
            progress(f"round {number}")
    return cells


async def recalls(store: StoreAlone, sizes: list[int], texts: Texts) -> dict[int, dict[str, list[float]]]:
    """Shares of the nearest texts that are among the store's candidates by meaning."""
    answer: dict[int, dict[str, list[float]]] = {size: {} for size in sizes}
    for size in sizes:
        for part, lot in FILTERS.items():
            for asked in range(min(PROBED, len(texts.questions))):
                prepared = store.prepare(texts.questions[asked], texts.asked[asked])
                found = store.numbers(await store.query(str(size), prepared, lot))
                for best in (BEST, CANDIDATES):
                    share = texts.recall(found, asked, size, lot, best)
                    if share is not None:
                        answer[size].setdefault(f"{part}recall@{best}", []).append(share)
    return answer


async def measure(kind: str, place: str, texts: Texts, options: argparse.Namespace) -> dict[str, object]:
    """All of one kind of store: measure, print, and return the figures."""
    ours = ThisProject()
    floors: list[Contender] = [NumpyFloor()] if kind == "sqlite" else [PgvectorFloor(), HnswFloor()]
    peers = [peer() for peer in (ON_SQLITE if kind == "sqlite" else ON_POSTGRESQL) if not options.no_peers]
    alone = StoreAlone(ours)
    everybody = [*floors, ours, alone, *peers]
    sizes = [options.rows // 100, options.rows // 10, options.rows]
    tenants = [10**n for n in range(1, 10) if 10**n < sizes[-1]] + [sizes[-1]]
    async with opened(everybody, place) as ready:
        stored = await ingest(ready, texts.texts[:INGEST], 1 if options.quick else INGEST_ROUNDS)
        for size in sorted({*sizes, *tenants}):
            for contender in ready if size in sizes else [ours]:
                begun = time.perf_counter()
                await contender.fill(str(size), texts.texts[:size], texts.vectors[:size])
                if (taken := time.perf_counter() - begun) > 1:
                    progress(f"{contender.name}: {size:,} texts ready ({taken:.0f} s)")
        if kind == "postgresql":
            settle(place)
        first = await first_search(place, str(sizes[-1]), texts.questions[-1])
        cells = await query(ready, sizes, texts, options.rounds)
        shares = await recalls(StoreAlone(ours, words=False), tenants, texts)
    for contender in everybody:
        print(f"  {contender.name}: {contender.note or contender.durability or 'for questions only'}")
    floor = floors[0].name
    missing = [(contender.name, contender.note) for contender in everybody if contender.note]
    show_queries(kind, cells, floor, sizes, missing)
    show_ingest(kind, stored, floor, len(texts.texts[:INGEST]), missing)
    columns = list(shares[tenants[-1]])
    rows = [
        (f"{size:,}", [f"{statistics.mean(row[c]):.3f}" if c in row else "-" for c in columns])
        for size, row in shares.items()
    ]
    table(f"{kind}: candidates of the store, texts", columns, rows)
    print(f"first search of a fresh engine, {sizes[-1]:,} texts: {1000 * first:.0f} ms")
    verdicts(kind, cells, stored, floor, sizes)
    return {
        "queries": {
            name: {size: {part: cell.p50(part) for part in FILTERS} for size, cell in row.items()}
            for name, row in cells.items()
        },
        "ingest": {name: statistics.median(seconds) for name, seconds in stored.items()},
        "recall": {size: {c: statistics.mean(v) for c, v in row.items()} for size, row in shares.items()},
        "first search": first,
    }


def settle(database_url: str) -> None:
    """Have the server do now what it would else do between the rounds, because of the filling."""
    import psycopg

    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("vacuum analyze")
        connection.execute("checkpoint")


async def first_search(place: str, tenant: str, question: str) -> float:
    """Seconds of an engine's first search, when nothing is in its memory."""
    fresh = ThisProject()
    await fresh.open(place)
    begun = time.perf_counter()
    await fresh.query(tenant, question)
    taken = time.perf_counter() - begun
    await fresh.close()
    return taken


def show_queries(
    kind: str, cells: dict[str, dict[int, Cell]], floor: str, sizes: list[int], missing: list[tuple[str, str]]
) -> None:
    """Print medians and their ratios to the floor's."""
    for part in FILTERS:
        columns, rows = [], {name: [] for name in cells}
        for size in sizes:
            columns += [f"{size:,}: p50", "/ floor"]
            for name, row in cells.items():
                mine, its = row[size].p50(part), cells[floor][size].p50(part)
                rows[name] += [f"{mine:.2f}", f"{mine / its:.2f}x"]
        for name, row in cells.items():
            recall = row[sizes[-1]].recall[part]
            rows[name] += [
                f"{row[sizes[-1]].p50(part) / row[sizes[-2]].p50(part):.1f}x",
                f"{statistics.mean(recall):.3f}" if recall else "",
            ]
        columns += [f"growth from {sizes[-2]:,}", "recall@10"]
        rest = [(name, [note, *[""] * (len(columns) - 1)]) for name, note in missing]
        table(f"{kind}: {part}question, ms", columns, [*rows.items(), *rest])


def show_ingest(
    kind: str, stored: dict[str, list[float]], floor: str, count: int, missing: list[tuple[str, str]]
) -> None:
    """Print what storing takes."""
    its = statistics.median(stored[floor])
    rows = []
    for name, seconds in stored.items():
        mine = statistics.median(seconds)
        rows.append((name, [f"{mine:.2f}", f"{count / mine:,.0f}", f"{mine / its:.2f}x"]))
    rest = [(name, [note, "", ""]) for name, note in missing]
    table(f"{kind}: embed and store {count:,} texts", ["s", "texts/s", "/ floor"], [*rows, *rest])


def verdicts(
    kind: str, cells: dict[str, dict[int, Cell]], stored: dict[str, list[float]], floor: str, sizes: list[int]
) -> None:
    """Print what is to hold, and whether."""
    most, most_ingest = TO_HOLD[kind]
    ours = cells[ThisProject.name]
    query = ours[sizes[-1]].p50("") / cells[floor][sizes[-1]].p50("")
    growth = ours[sizes[-1]].p50("") / ours[sizes[-2]].p50("")
    ingest = statistics.median(stored[ThisProject.name]) / statistics.median(stored[floor])
    to_hold = f"to hold at 100,000: {most:.1f}x"
    print(f"{kind}: a question to {sizes[-1]:,} texts costs {query:.2f}x the floor ({to_hold})")
    print(f"{kind}: ten times the texts cost {growth:.1f}x the time (to hold: {sizes[-1] / sizes[-2]:.0f}x)")
    print(f"{kind}: storing costs {ingest:.2f}x the floor" + (f" (to hold: {most_ingest}x)" if most_ingest else ""))


def sqlite(texts: Texts, options: argparse.Namespace) -> dict[str, object]:
    """In a file."""
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(measure("sqlite", folder, texts, options))


def postgresql(texts: Texts, options: argparse.Namespace) -> dict[str, object]:
    """On a PostgreSQL that is started, or given."""
    import psycopg
    from tests.servers import GivenPostgres, Postgres

    from llm_memory_plugins.stores.migrate import migrate

    async def run(url: str) -> dict[str, object]:
        async for _ in migrate(SecretStr(url)):
            pass
        with psycopg.connect(url, autocommit=True) as connection:  # peers and floors name the extension's types bare
            connection.execute("alter database vector set search_path = public, extensions")
            version, fsync = (connection.execute(f"show {x}").fetchone()[0] for x in ("server_version", "fsync"))
        print(f"\nPostgreSQL {version} (fsync {fsync})")
        return await measure("postgresql", url, texts, options)

    given = os.environ.pop("LLM_MEMORY_TEST_DATABASE_URL", None)
    with ExitStack() as stack:
        server = GivenPostgres(given) if given else stack.enter_context(Postgres())
        stack.callback(server.drop_database, "vector")
        return asyncio.run(run(server.create_database("vector")))


def main(options: argparse.Namespace) -> None:
    """Measure what was asked for."""
    if options.quick:
        options.rows, options.rounds = 1000, min(options.rounds, 3)
    begun = time.perf_counter()
    texts = Texts(options.rows, options.rounds + WARM_UP + 1)
    progress(f"{options.rows:,} texts embedded ({time.perf_counter() - begun:.0f} s)")
    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} cores, {options.rounds} rounds")
    result: dict[str, object] = {}
    for kind in options.stores.split(","):
        result[kind] = {"sqlite": sqlite, "postgresql": postgresql}[kind](texts, options)
    print(f"load average afterwards: {os.getloadavg()[0]:.1f}")
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=1), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000, help="texts of the largest tenant, 1,000 at least")
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--stores", default="sqlite,postgresql")
    parser.add_argument("--quick", action="store_true", help="1,000 texts and few rounds, to see that it works")
    parser.add_argument("--no-peers", action="store_true", help="floors and this project alone")
    parser.add_argument("--json", help="a file for the figures")
    main(parser.parse_args())
