"""What is left of 200 planted facts after a long conversation was compacted five times?

Numbers, dates, names, ids, URLs and file paths are planted, one a message, among small talk; after each fifth of the
conversation everything older than the buffer is compacted. Counted is what can still be found, letter for letter, in
the summary: in all of it, and in what a context of 4,000 and 8,000 tokens shows of it.

    python benchmarks/probe_survival.py
"""

from __future__ import annotations

import asyncio
import random
import tempfile

from llm_memory_plugins import ConversationSummaryMemory
from llm_memory_plugins.summaries import finest
from llm_memory_plugins.types import SessionRef

FACTS = 200
TURNS = 1000
PASSES = 5

FIRST = [
    "Ilse",
    "Marek",
    "Petra",
    "Anouk",
    "Tomas",
    "Greta",
    "Ruben",
    "Signe",
    "Pavel",
    "Maren",
    "Edda",
    "Jonas",
    "Livia",
    "Oskar",
    "Freya",
    "Henrik",
]
LAST = [
    "Brandt",
    "Novak",
    "Lindqvist",
    "Okafor",
    "Haugen",
    "Castell",
    "Dvorak",
    "Ferro",
    "Grimaldi",
    "Hansson",
    "Iversen",
    "Jankowski",
    "Keller",
]
SMALL = [
    "That sounds lovely, I hope it stays that way.",
    "I was so tired after work that I fell asleep on the sofa.",
    "Honestly the weather has been strange all week.",
    "We had soup again, nobody complained this time.",
    "You always know how to cheer me up, thank you!",
    "I keep meaning to read more, but the evenings go so fast.",
    "How was your weekend? Mine was quiet and rather nice.",
    "The neighbours were loud again, so we took a long walk.",
]


def fact(n: int, rng: random.Random) -> tuple[str, str]:
    """A sentence and what must be found of it."""
    month = rng.choice(
        ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October"]
    )
    probe, sentence = [
        (f"INV-2026-{1000 + n}", "By the way, the invoice number is {}, please keep it somewhere."),
        (f"${rng.randint(100, 9999):,}.{n % 90 + 10}", "The contractor wants {} for the whole kitchen, can you believe it?"),
        (f"{month} {n % 28 + 1}, 2026", "The hearing was moved to {} because the judge is away."),
        (f"{rng.choice(FIRST)} {rng.choice(LAST)}{rng.choice(['', '-Ohm', '-Ruiz'])}", "My new landlord is called {} and seems all right."),
        (f"https://example.org/docs/{n}/setup?step={n % 7}", "You will find the manual at {} when you need it."),
        (f"/srv/app{n}/config/site.yaml", "It turned out that the setting lives in {} after all."),
        (f"{n % 12 + 1}:{n % 50 + 10} pm", "The dentist can only see me at {} so I have to leave early."),
        (f"{n + 17}%", "They told us that about {} of the seats are already gone."),
        (f"user{n}@example.com", "If anything comes up you can write to {} at any time."),
        (f"TKT-{n:05d}", "Support opened ticket {} and promised to call back."),
    ][n % 10]  # fmt: skip
    return sentence.format(probe), probe


def found(probes: list[str], text: str) -> float:
    """Share of the probes that stand in the text."""
    return sum(probe in text for probe in probes) / len(probes)


async def main() -> None:
    """Plant, compact, look."""
    rng = random.Random(7)
    planted = {turn: fact(n, rng) for n, turn in enumerate(sorted(rng.sample(range(TURNS - 20), FACTS)))}
    probes = [probe for _, probe in planted.values()]
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/memory.sqlite3"
        config = {"database_url": url, "tokenizer": "estimate", "summarization_model": "offline"}
        async with ConversationSummaryMemory(config) as memory:
            for part in range(PASSES):
                messages = []
                for turn in range(part * TURNS // PASSES, (part + 1) * TURNS // PASSES):
                    extra = planted.get(turn, ("", ""))[0]
                    said = " ".join(filter(None, (rng.choice(SMALL), extra, rng.choice(SMALL))))
                    messages.append({"session_id": "s", "role": "user", "content": said})
                    messages.append({"session_id": "s", "role": "assistant", "content": rng.choice(SMALL)})
                await memory.store(messages)
                await memory.compact("s")
            state = await memory._ports.summaries.read(SessionRef("s"), finest=0)
            rolled = "\n".join(line.text for line in finest(state.nodes, memory._counter))
            stats = await memory.get_session_stats("s")
            print(f"{FACTS} facts in {stats.message_count:,} messages of {stats.tokens:,} tokens, {PASSES} passes")
            print(
                f"coarsest summary that covers everything: {found(probes, rolled):.1%} of {len(rolled) // 4:,} tokens"
            )
            for budget in (4000, 8000):
                context = await memory.get_context({"session_id": "s", "max_total_tokens": budget})
                print(f"context of {budget} tokens: {found(probes, context.summary):.1%}")
            texts = "\n".join([m.content async for m in memory.messages("s")])
            print(f"original messages: {found(probes, texts):.1%}")


if __name__ == "__main__":
    asyncio.run(main())
