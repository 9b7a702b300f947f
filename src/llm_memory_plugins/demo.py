"""The demonstration of the command line: a long conversation, questions about it, and what each budget holds.

It runs on the embedded default alone, whatever the environment says: SQLite in a temporary folder, summaries by rule,
no key and no network.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.resources import as_file, files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from llm_memory_plugins import anchors
from llm_memory_plugins.config import SummaryConfig
from llm_memory_plugins.context import Context
from llm_memory_plugins.display import bar, printable, shortened, table
from llm_memory_plugins.engines.summary import ConversationSummaryMemory
from llm_memory_plugins.errors import InvalidInput
from llm_memory_plugins.text import STOP_WORDS, words
from llm_memory_plugins.types import Message, Piece, SessionStats

BUDGETS = (500, 1000, 4000)

_WHOLE = 500  # up to this budget a context is printed whole; beyond, its best pieces
_BEST = 4
_QUESTIONS = 3
_TOPIC = re.compile(r"\b(?:my|our|your|the)\s+([a-z]{4,})\b")  # a word behind these is mostly a noun


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question to a conversation; for bundled ones the answer and the ids of the messages it stands in."""

    text: str
    answer: str = ""
    evidence: tuple[str, ...] = ()


@dataclass(slots=True)
class _Tally:
    """By budget: for how many questions all evidence reached the context, of how many that have evidence."""

    reached: Counter[int] = field(default_factory=Counter[int])
    asked: Counter[int] = field(default_factory=Counter[int])


class _Origins:
    """Finds the messages a piece was made from."""

    def __init__(self, messages: Iterable[Message]) -> None:
        self.messages = list(messages)
        self._by_id = {message.id: message for message in self.messages}
        self._by_seq = {f"seq {message.seq}": message for message in self.messages}

    def of(self, piece: Piece) -> list[Message]:
        """The messages, in the order of the piece's ids."""
        known = self._by_seq if piece.source == "summary" else self._by_id
        return [known[name] for name in piece.ids if name in known]


async def run(
    console: Console,
    *,
    transcript: Path | None = None,
    questions: Sequence[str] = (),
    budgets: Sequence[int] = (),
) -> None:
    """Import a transcript, summarise it, and show the context of each question at each budget.

    Args:
        console: Where to print.
        transcript: A JSONL file of messages. Default: the bundled conversation.
        questions: Default: the bundled ones, or for another transcript three that are made from its words.
        budgets: Tokens. Default: 500, 1000 and 4000.

    Raises:
        InvalidInput: When the transcript holds a line that is no message, or none at all.
        BudgetError: When a budget cannot hold any memory.
    """
    begun = time.perf_counter()
    tally = _Tally()
    with TemporaryDirectory() as folder, as_file(files("llm_memory_plugins") / "data") as data:
        async with ConversationSummaryMemory(_settings(folder)) as memory:
            session = await _remember(console, memory, transcript or data / "demo.jsonl")
            messages = memory.messages(session.session_id, session.user_id)
            origins = _Origins([message async for message in messages])
            asked = [Question(text=text) for text in questions]
            if not asked:
                asked = _bundled(data) if transcript is None else made_from(origins.messages)
            for question in asked:
                _print_question(console, question)
                for budget in budgets or BUDGETS:
                    await _answer(console, memory, session, question, budget, origins, tally)
    _print_totals(console, tally, time.perf_counter() - begun)


def _settings(folder: str) -> dict[str, Any]:
    """Every setting by its default, so that nothing comes from the environment."""
    defaults = {name: setting.default for name, setting in SummaryConfig.model_fields.items()}
    return {**defaults, "database_url": f"sqlite:///{folder}/demo.db", "summarization_model": "offline"}


async def _remember(console: Console, memory: ConversationSummaryMemory, path: Path) -> SessionStats:
    """Import and summarise; returns the longest session of the transcript."""
    async with _timed(console, "importing") as done:
        count = await memory.import_(path, session_id="demo")
        done.append(f"{count} messages imported")
    sessions = await memory.list_sessions()
    if not sessions:
        raise InvalidInput("transcript", "holds no messages")
    session = max(sessions, key=lambda stats: stats.tokens)
    async with _timed(console, "summarising") as done:
        await memory.drain()  # the import has begun it in the background; two at once would only race
        await memory.compact(session.session_id, session.user_id)
        done.append(f"the older of {session.tokens:,} tokens summarised, by rule")
    others = f"; the longest of {len(sessions)}" if len(sessions) > 1 else ""
    console.print(
        Text(
            f"session {printable(session.session_id)!r}: {session.message_count} messages in {session.turn_count} turns"
            f"{_period(session)}{others}"
        )
    )
    return session


@asynccontextmanager
async def _timed(console: Console, doing: str) -> AsyncGenerator[list[str]]:
    """A moving bar while it lasts, then one line: what the caller put into the list, and the time it took."""
    begun = time.perf_counter()
    done: list[str] = []
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        progress.add_task(doing, total=None)
        yield done
    console.print(Text(f"{'; '.join(done)} in {time.perf_counter() - begun:.2f} s"))


def _period(session: SessionStats) -> str:
    if session.first_at is None or session.last_at is None:
        return ""
    return f", {session.first_at:%Y-%m-%d} to {session.last_at:%Y-%m-%d}"


def _bundled(data: Path) -> list[Question]:
    listed: list[Mapping[str, Any]] = json.loads((data / "demo_questions.json").read_text(encoding="utf-8"))
    return [Question(text=x["question"], answer=x["answer"], evidence=tuple(x["ids"])) for x in listed]


def made_from(messages: Sequence[Message]) -> list[Question]:
    """Up to three questions made from a conversation's words alone: names first, then what is often spoken of.

    No model is asked, so they are plain: "What did Ann say about Lisbon?".
    """
    names: defaultdict[str, Counter[str]] = defaultdict(Counter)
    topics: defaultdict[str, Counter[str]] = defaultdict(Counter)
    speakers = {word for message in messages for word in words(message.speaker)}
    for message in messages:
        if message.role not in {"user", "assistant"}:
            continue
        who = message.name or f"the {message.role}"
        for name in {x.text for x in anchors.find(message.content) if x.kind == "name"}:
            if len(name) > 3 and not _short_form(name, speakers):
                names[name][who] += 1
        for topic in set(_TOPIC.findall(message.content)):
            if topic not in STOP_WORDS and topic not in speakers:
                topics[topic][who] += 1
    found = [*_most(names, least=2), *_most(topics, least=2), *_most(names, least=1), *_most(topics, least=1)]
    asked = dict.fromkeys(f"What did {who} say about {what}?" for what, who in found)
    return [Question(text=text) for text in [*asked][:_QUESTIONS]] or [Question(text="What was this about?")]


def _short_form(name: str, speakers: Iterable[str]) -> bool:
    """Whether a name is that of a speaker, like "Mel" of "Melanie"."""
    return any(speaker.startswith(word) for speaker in speakers for word in words(name))


def _most(spoken: Mapping[str, Counter[str]], *, least: int) -> list[tuple[str, str]]:
    """What was spoken of in at least `least` messages, the most first, each with who did so most."""
    often = [(what, who) for what, who in spoken.items() if who.total() >= least]
    often.sort(key=lambda x: (-x[1].total(), x[0]))
    return [(what, who.most_common(1)[0][0]) for what, who in often[:_QUESTIONS]]


async def _answer(
    console: Console,
    memory: ConversationSummaryMemory,
    session: SessionStats,
    question: Question,
    budget: int,
    origins: _Origins,
    tally: _Tally,
) -> None:
    begun = time.perf_counter()
    context = await memory.get_context(
        {
            "session_id": session.session_id,
            "user_id": session.user_id,
            "query": question.text,
            "max_total_tokens": budget,
        }
    )
    took = 1000 * (time.perf_counter() - begun)
    console.print(Text(f"\n  with {budget} tokens, composed in {took:.0f} ms", style="bold"))
    console.print(Padding(bar(context, width=40), (0, 0, 0, 2), expand=False))
    if budget <= _WHOLE:
        console.print(Padding(Text(printable(context.text.rstrip())), (1, 0, 1, 6), expand=False))
    _print_pieces(console, context, question, origins, whole=budget <= _WHOLE)
    if question.evidence:
        tally.asked[budget] += 1
        tally.reached[budget] += _print_evidence(console, context, question, origins)


def _print_question(console: Console, question: Question) -> None:
    console.print()
    console.rule(style="dim")
    console.print(Text(f"Question: {printable(question.text)}", style="bold"))
    if question.answer:
        console.print(Text(f"Answer in the transcript: {printable(question.answer)}", style="dim"))


def _print_pieces(console: Console, context: Context, question: Question, origins: _Origins, *, whole: bool) -> None:
    """Where the pieces came from: all of them, or those with evidence and the best of each source."""
    shown = context.pieces if whole else _best(context, question, origins)
    room = max(20, console.width - 53)  # what the other columns leave, so that a piece is one line
    rows = [_piece_row(piece, origins.of(piece), room) for piece in shown]
    title = f"{len(context.pieces)} pieces" if whole else f"{len(shown)} of {len(context.pieces)} pieces"
    headings = ("source", "message", "date", "#tokens", "#score", "text")
    console.print(Padding(table(*headings, rows=rows, title=title), (0, 0, 0, 2), expand=False))


def _best(context: Context, question: Question, origins: _Origins) -> list[Piece]:
    def rank(piece: Piece) -> tuple[bool, bool, float]:
        evident = any(message.id in question.evidence for message in origins.of(piece))
        return not evident, piece.source == "messages", -piece.score  # messages are in by position, not by score

    best = {id(piece) for piece in sorted(context.pieces, key=rank)[:_BEST]}
    return [piece for piece in context.pieces if id(piece) in best]


def _piece_row(piece: Piece, messages: Sequence[Message], room: int) -> list[str | Text]:
    days = sorted({f"{message.created_at:%Y-%m-%d}" for message in messages})
    origin = ", ".join(shortened(message.id, 12) for message in messages)
    line = (
        piece.text if piece.source == "messages" else piece.text[piece.text.find("- ") :]
    )  # without the day's heading
    return [piece.source, origin, " ".join(days), str(piece.tokens), f"{piece.score:.2f}", shortened(line, room)]


def _print_evidence(console: Console, context: Context, question: Question, origins: _Origins) -> bool:
    """Whether all messages that hold the answer reached the context, as they were said or by a summary line."""
    held: dict[str, str] = {}
    for piece in context.pieces:
        how = "by a summary line" if piece.source == "summary" else "verbatim"
        held.update((message.id, how) for message in origins.of(piece))
    each = ", ".join(f"{name} {held.get(name, 'not there')}" for name in question.evidence)
    reached = all(name in held for name in question.evidence)
    line = f"  evidence in the context: {'yes' if reached else 'no'} ({each})"
    console.print(Text(line, style="green" if reached else "red"))
    return reached


def _print_totals(console: Console, tally: _Tally, seconds: float) -> None:
    console.print()
    if tally.asked:
        each = ", ".join(f"{tally.reached[budget]} of {asked} at {budget}" for budget, asked in tally.asked.items())
        console.print(Text(f"Questions whose evidence all reached the context: {each} tokens.", style="bold"))
        console.print(Text("A summary line counts as its message, though it says only part of it."))
    console.print(Text(f"Done in {seconds:.1f} s, without network, keys or models."))
