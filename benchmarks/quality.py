"""Does what answers a question reach the context? No model judges: the texts that answer are known.

R@k is the share of the answering texts among the first k that are found; EIC@B the share that stands in a context of at
most B tokens (4 characters a token). Compared are (a) the last texts alone, (b) the cosine of the offline embedder, (c)
BM25 over stems, (d) reciprocal rank fusion of both, and (e) this package: `VectorDatabaseMemory` with its embedded
defaults, its `search` and the text its `get_context` renders. What (a) to (d) choose is rendered alike, as much as fits.

The data is in the repository: the bundled transcript, and conversations and documents that are made (see
`quality_data.py`). With `--script` another script measures the package too, one that takes `--dataset` and
`--plugin module:factory` as here `benchmarks.plugins:memory`; its lines are printed.

    python benchmarks/quality.py [--postgres] [--script PATH [--datasets locomo,beam]] [--quick]

LLM_MEMORY_BENCH_SCRIPT names a script as well. With `--postgres` everything is measured on PostgreSQL again, which is
started for the run unless LLM_MEMORY_TEST_DATABASE_URL names one; on that a database `quality` is made anew.
"""

# ruff: noqa: D102 - methods are described once, in `Baseline`

from __future__ import annotations

import argparse
import asyncio
import math
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
from plugins import memory
from pydantic import SecretStr
from quality_data import DATASETS, Conversation, Turn
from tables import table

from llm_memory_plugins.providers.embedders import offline
from llm_memory_plugins.runner import run
from llm_memory_plugins.text import STOP_WORDS, stem, words

ROOT = Path(__file__).parents[1]
DEPTHS = (5, 10, 20)
BUDGETS = (500, 1000, 2000, 4000)
K1, B = 1.2, 0.75
RRF = 60

sys.path.insert(0, str(ROOT))


class Baseline:
    """Orders all texts of a conversation, and renders as many of the first as fit."""

    def ingest(self, conversation: Conversation) -> None:
        """Read the texts."""
        self._turns = conversation.turns

    def order(self, question: str) -> Sequence[int]:
        """Places of the texts, best first."""
        raise NotImplementedError

    def retrieve(self, conversation_id: str, question: str, k: int) -> list[str]:
        """Ids of the best."""
        return [self._turns[place].id for place in self.order(question)[:k]]

    def context(self, conversation_id: str, question: str, budget: int) -> str:
        """The best that fit, in the order in which they were said, under their days."""
        kept: list[int] = []
        used, days = 0, set[str]()
        for place in self.order(question):
            turn = self._turns[place]
            cost = len(turn.full) + 1 + (0 if turn.date in days else len(turn.date) + 3)
            if tokens(used + cost) <= budget:
                kept.append(place)
                days.add(turn.date)
                used += cost
        lines, day = [], ""
        for turn in (self._turns[place] for place in sorted(kept)):
            if turn.date != day:
                lines.append(f"[{turn.date}]")
                day = turn.date
            lines.append(turn.full)
        return "\n".join(lines)


class Last(Baseline):
    """What was said last."""

    def order(self, question: str) -> Sequence[int]:
        return range(len(self._turns) - 1, -1, -1)


class Cosine(Baseline):
    """By the offline embedder."""

    def ingest(self, conversation: Conversation) -> None:
        super().ingest(conversation)
        self._vectors = embed([turn.full for turn in self._turns])

    def order(self, question: str) -> Sequence[int]:
        return ordered(self._vectors @ embed([question])[0])


class Words(Baseline):
    """By BM25 over stems, stop words left out."""

    def ingest(self, conversation: Conversation) -> None:
        super().ingest(conversation)
        self._counts = [Counter(_stems(turn.full)) for turn in self._turns]
        self._lengths = np.array([sum(counts.values()) for counts in self._counts])
        self._holding = Counter(word for counts in self._counts for word in counts)

    def order(self, question: str) -> Sequence[int]:
        scores = np.zeros(len(self._turns))
        longer = K1 * (1 - B + B * self._lengths / max(1.0, self._lengths.mean()))
        for word in dict.fromkeys(_stems(question)):
            holding = self._holding[word]
            count = np.array([counts[word] for counts in self._counts])
            idf = math.log1p((len(self._turns) - holding + 0.5) / (holding + 0.5))
            scores += idf * count * (K1 + 1) / (count + longer)
        return ordered(scores)


class Fusion(Baseline):
    """Reciprocal rank fusion of the two (Cormack et al., 2009)."""

    def __init__(self) -> None:
        self._parts = (Cosine(), Words())

    def ingest(self, conversation: Conversation) -> None:
        super().ingest(conversation)
        for part in self._parts:
            part.ingest(conversation)

    def order(self, question: str) -> Sequence[int]:
        scores = np.zeros(len(self._turns))
        for part in self._parts:
            scores[np.asarray(part.order(question))] += 1 / (RRF + 1 + np.arange(len(scores)))
        return ordered(scores)


def ordered(scores: np.ndarray) -> Sequence[int]:
    """Places by score, equal ones in their order."""
    return np.argsort(-np.round(scores, 6), kind="stable").tolist()


def embed(texts: list[str]) -> np.ndarray:
    """Unit vectors, one a text."""
    return run(offline.OfflineEmbedder().embed, texts, kind="document")[0]


def _stems(text: str) -> list[str]:
    return [stem(word) for word in words(text) if word not in STOP_WORDS]


def tokens(characters: int) -> int:
    """Four characters a token."""
    return math.ceil(characters / 4)


def squeezed(text: str) -> str:
    """In lower case, and with single spaces."""
    return " ".join(text.split()).lower()


def measured(memory: object, conversations: list[Conversation]) -> list[float]:
    """Means over all questions: R@k for each depth, EIC@B for each budget."""
    rows: list[list[float]] = []
    for conversation in conversations:
        memory.ingest(conversation)
        turns: dict[str, Turn] = {turn.id: turn for turn in conversation.turns}
        for question in conversation.questions:
            gold = question.gold
            found = memory.retrieve(conversation.id, question.text, max(DEPTHS))
            row = [len({*gold} & {*found[:depth]}) / len(gold) for depth in DEPTHS]
            for budget in BUDGETS:
                text = squeezed(memory.context(conversation.id, question.text, budget)[: 4 * budget])
                row.append(sum(squeezed(turns[g].text) in text for g in gold) / len(gold))
            rows.append(row)
    return np.mean(rows, axis=0).tolist()


def compare(stores: dict[str, str | None], *, quick: bool) -> None:
    """Print a table for each set of data; quick: of the first of its conversations, and few questions."""
    contenders = {
        "(a) last texts only": Last(),
        "(b) cosine, offline embedder": Cosine(),
        "(c) BM25 with stemming": Words(),
        "(d) rank fusion of (b) and (c)": Fusion(),
    }
    for name, url in stores.items():
        with environment(url):
            contenders[f"(e) this package, {name}"] = memory()
    columns = [*(f"R@{depth}" for depth in DEPTHS), *(f"EIC@{budget}" for budget in BUDGETS)]
    for title, made in DATASETS.items():
        data = made()
        if quick:
            data = [replace(data[0], questions=data[0].questions[:8])]
        asked, told = (
            sum(len(part) for part in parts) for parts in zip(*((c.questions, c.turns) for c in data), strict=True)
        )
        rows = [(name, [f"{x:.3f}" for x in measured(one, data)]) for name, one in contenders.items()]
        table(f"{title}: {asked} questions to {told:,} texts", columns, rows)
    for contender in contenders.values():
        if hasattr(contender, "close"):
            contender.close()


class environment:  # noqa: N801 - reads like a function
    """Sets where the plugin keeps its memory: by URL, or in this process for None."""

    name = "LLM_MEMORY_DATABASE_URL"

    def __init__(self, url: str | None) -> None:
        self._url = url

    def __enter__(self) -> None:
        self._before = os.environ.pop(self.name, None)
        if self._url:
            os.environ[self.name] = self._url

    def __exit__(self, *_: object) -> None:
        os.environ.pop(self.name, None)
        if self._before:
            os.environ[self.name] = self._before


def ask_script(script: Path, datasets: list[str], stores: dict[str, str | None]) -> None:
    """Have another script measure the package, once a store, and print its lines."""
    for name, url in stores.items():
        for dataset in datasets:
            print(f"\n{script.name} --dataset {dataset}, {name}", flush=True)
            plugin = ["--plugin", "benchmarks.plugins:memory"]
            with environment(url):
                subprocess.run([sys.executable, script, "--dataset", dataset, *plugin], cwd=ROOT, check=True)


def postgresql(stack: ExitStack) -> str:
    """The URL of a database on a PostgreSQL that is started, or given."""
    from tests.servers import GivenPostgres, Postgres

    from llm_memory_plugins.stores.migrate import migrate

    async def prepare(url: str) -> None:
        async for _ in migrate(SecretStr(url)):
            pass

    given = os.environ.pop("LLM_MEMORY_TEST_DATABASE_URL", None)
    server = GivenPostgres(given) if given else stack.enter_context(Postgres())
    stack.callback(server.drop_database, "quality")
    url = server.create_database("quality")
    asyncio.run(prepare(url))
    return url


def main(options: argparse.Namespace) -> None:
    """Measure what was asked for."""
    with ExitStack() as stack:
        stores: dict[str, str | None] = {"SQLite": None}
        if options.postgres:
            stores["PostgreSQL"] = postgresql(stack)
        compare(stores, quick=options.quick)
        if options.script:
            ask_script(Path(options.script).resolve(), options.datasets.split(","), stores)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--postgres", action="store_true", help="measure on PostgreSQL, too")
    parser.add_argument("--script", default=os.environ.get("LLM_MEMORY_BENCH_SCRIPT"), help="another measuring script")
    parser.add_argument("--datasets", default="locomo,beam", help="of that script")
    parser.add_argument("--quick", action="store_true", help="few questions, to see that it works")
    main(parser.parse_args())
