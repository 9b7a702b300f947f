"""The conversation summary: in the background, once per range, and never at the cost of what is there."""

import asyncio
import sqlite3
from datetime import UTC, datetime, timedelta

import pytest

from llm_memory_plugins import ConversationSummaryMemory
from llm_memory_plugins.errors import ModelError
from llm_memory_plugins.types import SessionRef, SummaryLine, Usage


class Scripted:
    """A summariser that keeps every other line, or does what the test says."""

    identity = "scripted/1"

    def __init__(self):
        self.calls = []
        self.fail_with = None
        self.answer = None
        self.wait = None
        self.called = asyncio.Event()

    async def summarise(self, lines, *, max_tokens):
        self.calls.append((lines[0].seqs[0], lines[-1].seqs[-1]))
        self.called.set()
        if self.wait:
            await self.wait.wait()
        if self.fail_with:
            raise self.fail_with
        if self.answer is not None:
            return self.answer, Usage(1, 1, 1)
        kept = lines[::2]
        return [SummaryLine(x.text[:80], x.seqs, x.at, 0.5) for x in kept], Usage(100, 10, 1)


def talk(first, last, session="s"):
    return [
        {"session_id": session, "role": role, "content": f"{role} says plain words about topic{n} " + "and more " * 10}
        for n in range(first, last)
        for role in ("user", "assistant")
    ]


@pytest.fixture
def summariser():
    return Scripted()


@pytest.fixture
def settings(config):
    return {**config, "buffer_window_size": 3, "summary_trigger_tokens": 200, "max_total_tokens": 1000}


@pytest.fixture
async def memory(settings, summariser):
    async with ConversationSummaryMemory(settings, summariser=summariser) as opened:
        yield opened


def covered(context):
    """Each `seq` the context speaks for, by where it does so."""
    verbatim = [m.seq for m in context.messages]
    summarised = [int(i.split()[1]) for p in context.pieces if p.source == "summary" for i in p.ids]
    return verbatim, summarised


async def test_old_turns_are_summarised_in_the_background_and_new_ones_stay(memory, summariser):
    for n in range(20):
        await memory.store(talk(n, n + 1))
    await memory.drain()
    assert summariser.calls, "it was triggered by tokens"
    context = await memory.get_context("s")
    verbatim, summarised = covered(context)
    assert verbatim[-6:] == [35, 36, 37, 38, 39, 40]
    assert verbatim == list(range(verbatim[0], 41)), "what is not summarised yet stays verbatim"
    assert summarised
    assert set(summarised).isdisjoint(verbatim), "nothing is said twice"
    assert "topic0" in context["summary"]
    assert context.tokens <= 1000
    assert memory.usage.calls == len(summariser.calls)


async def test_storing_never_waits_for_the_summariser(memory, summariser):
    summariser.wait = asyncio.Event()
    await memory.store(talk(0, 30))
    assert len((await memory.get_context("s")).messages) > 0
    summariser.wait.set()
    await memory.drain()
    assert covered(await memory.get_context("s"))[1]


async def test_compact_does_it_now_and_everything_older_than_the_buffer(memory, summariser):
    await memory.store(talk(0, 20))
    await memory.drain()
    await memory.compact("s")
    verbatim, _ = covered(await memory.get_context("s"))
    assert verbatim == list(range(35, 41))
    assert await memory.compact("s") == 0, "nothing is left to do"


@pytest.mark.parametrize("budget", [60, 100, 200, 500, 1000, 4000])
async def test_the_budget_is_hard_and_its_unused_shares_flow_over(memory, budget):
    await memory.store(talk(0, 40))
    await memory.compact("s")
    context = await memory.get_context({"session_id": "s", "max_total_tokens": budget})
    assert -(-len(context.text) // 4) <= context.tokens <= budget
    assert context.messages[-1].seq == 80 or context.messages[-1].role == "user"
    if budget == 500:
        assert context.sources["summary"] > 0.3 * budget, "the buffer is short, so the summary gets its rest"


async def test_a_query_chooses_among_the_lines_of_the_summary(memory):
    await memory.store(talk(0, 40))
    await memory.compact("s")
    for topic in (2, 7, 20):
        ask = {"session_id": "s", "max_total_tokens": 250, "query": f"What was said about topic{topic}?"}
        assert f"topic{topic} " in (await memory.get_context(ask)).summary


@pytest.mark.parametrize(
    "trouble",
    [
        {"fail_with": ModelError("down", retryable=True)},
        {"answer": [SummaryLine("bananas are blue", (1,), None, 1.0)]},
        {"answer": [SummaryLine("user says plain words", (999,), None, 1.0)]},
    ],
    ids=["fails", "makes things up", "cites foreign messages"],
)
async def test_a_bad_summariser_costs_nothing_and_is_tried_again(memory, summariser, trouble, clock):
    await memory.store(talk(0, 20))
    await memory.drain()
    before = await memory.get_context("s")
    for name, value in trouble.items():
        dated = [SummaryLine(x.text, x.seqs, clock.time, x.weight) for x in value] if name == "answer" else value
        setattr(summariser, name, dated)
    await memory.store(talk(20, 40))
    await memory.drain()
    with pytest.raises(ModelError):
        await memory.compact("s")
    after = await memory.get_context({"session_id": "s", "max_total_tokens": 8000})
    assert set(covered(before)[1]) <= set(covered(after)[1])
    assert covered(after)[0][-1] == 80
    health = await memory.health_check()
    assert health.detail["sessions_waiting_for_summariser"] == 1
    assert health.detail["summariser_failure"]
    summariser.fail_with = summariser.answer = None
    assert await memory.compact("s") > 0


async def test_a_slow_summariser_is_given_up(settings, summariser):
    summariser.wait = asyncio.Event()
    async with ConversationSummaryMemory({**settings, "model_timeout": 0.05}, summariser=summariser) as memory:
        await memory.store(talk(0, 20))
        with pytest.raises(ModelError, match="model_timeout"):
            await memory.compact("s")
        assert len([m async for m in memory.messages("s")]) == 40


async def test_after_a_failure_it_tries_again_by_itself(memory, summariser):
    summariser.fail_with = ModelError("down", retryable=True)
    await memory.store(talk(0, 20))
    await memory.drain()
    assert summariser.calls
    summariser.fail_with = None
    await asyncio.sleep(2.1)
    await memory.drain()
    assert covered(await memory.get_context("s"))[1]
    assert (await memory.health_check()).detail["sessions_waiting_for_summariser"] == 0


async def test_two_engines_summarise_each_range_once(settings):
    one, two = Scripted(), Scripted()
    async with (
        ConversationSummaryMemory(settings, summariser=one) as a,
        ConversationSummaryMemory(settings, summariser=two) as b,
    ):
        for n in range(40):
            await (a, b)[n % 2].store(talk(n, n + 1))
        await asyncio.gather(a.drain(), b.drain())
        await asyncio.gather(a.compact("s"), b.compact("s"))
        ranges = one.calls + two.calls
        leaves = [r for r in ranges if ranges.count(r) > 1]
        assert not leaves, "no range was paid for twice"


async def test_numbers_names_and_addresses_survive_a_summariser_that_drops_them(memory, summariser):
    facts = [
        "the invoice is INV-2024-0091",
        "call 555-0142 at 14:30",
        "see https://example.org/a?b=1",
        "in /etc/app/x.yaml",
    ]
    summariser.answer = None
    await memory.store(
        [{"session_id": "s", "role": "user", "content": f"Note that {fact} and keep it."} for fact in facts]
        + talk(0, 5)
    )
    await memory.compact("s")
    summary = (await memory.get_context("s")).summary
    for anchor in ("INV-2024-0091", "555-0142", "14:30", "https://example.org/a?b=1", "/etc/app/x.yaml"):
        assert anchor in summary


async def test_long_histories_are_rolled_up_and_leaves_are_kept(memory, tmp_path):
    await memory.store(talk(0, 250))
    await memory.compact("s")
    connection = sqlite3.connect(tmp_path / "memory.sqlite3")
    levels = dict(connection.execute("select level, count(*) from summaries group by level").fetchall())
    ranges = connection.execute("select from_seq, to_seq from summaries where level = 0 order by from_seq").fetchall()
    connection.close()
    assert levels[0] > 8 * levels[1] - 1 > 0
    assert [r[0] for r in ranges[1:]] == [r[1] + 1 for r in ranges[:-1]], "each message is in one leaf"
    context = await memory.get_context({"session_id": "s", "max_total_tokens": 6000})
    _, summarised = covered(context)
    assert len(summarised) == len(set(summarised)), "one level speaks for each message"


async def test_sessions_of_two_users_are_summarised_apart(memory):
    for user in ("a", "b"):
        await memory.store([{**m, "user_id": user, "content": f"{user}-{m['content']}"} for m in talk(0, 20)])
    await memory.drain()
    await memory.compact("s", "a")
    summary = (await memory.get_context({"session_id": "s", "user_id": "a"})).summary
    assert "a-user" in summary
    assert "b-user" not in summary


async def test_summaries_keep_to_the_retention(settings, summariser, clock):
    async with ConversationSummaryMemory(
        {**settings, "retention_seconds": 3600}, summariser=summariser, clock=clock
    ) as memory:
        await memory.store(talk(0, 10))
        await memory.compact("s")
        clock.forward(minutes=50)
        await memory.store(talk(10, 14))
        assert "topic0" in (await memory.get_context("s")).summary
        clock.forward(minutes=20)
        context = await memory.get_context("s")
        assert context.summary == ""
        assert [m.seq for m in context.messages] == list(range(21, 29))
        assert (await memory.prune()).removed["summaries"] > 0


async def test_the_offline_default_needs_nothing(config):
    async with ConversationSummaryMemory({**config, "summarization_model": "offline"}) as memory:
        await memory.store(talk(0, 30))
        assert await memory.compact("s") > 0
        assert (await memory.get_context("s")).summary
        assert memory.usage == Usage()


async def test_what_is_erased_while_it_is_summarised_stays_erased(memory, summariser):
    summariser.wait = asyncio.Event()
    await memory.store(talk(0, 20))
    await asyncio.wait_for(summariser.called.wait(), 10)
    await memory.clear("s")
    await memory.store([{**m, "content": "quite another matter"} for m in talk(0, 20)])
    summariser.wait.set()
    await memory.drain()
    await memory.compact("s")
    assert "topic" not in (await memory.get_context({"session_id": "s", "max_total_tokens": 9000})).text


async def test_compacting_twice_at_once_pays_once(memory, summariser):
    await memory.store(talk(0, 20))
    await asyncio.gather(*(memory.compact("s") for _ in range(3)))
    assert len(summariser.calls) == len(set(summariser.calls))


@pytest.mark.parametrize("budget", [45, 60, 100])
async def test_the_newest_message_is_whole_where_it_fits_whatever_the_summary_wants(memory, budget):
    await memory.store(talk(0, 30))
    await memory.compact("s")
    question = "Please cancel booking 7781 and tell me what we get back of the deposit of 250 euros, thank you."
    await memory.store({"session_id": "s", "role": "user", "content": question})
    context = await memory.get_context({"session_id": "s", "max_total_tokens": budget})
    assert context.messages[-1].content == question


async def test_turns_of_the_buffer_that_never_fit_are_summarised_too(memory):
    await memory.store([{**m, "content": f"fact {n} " + "word " * 400} for n, m in enumerate(talk(0, 3))])
    await memory.compact("s")
    verbatim, summarised = covered(await memory.get_context("s"))
    assert verbatim
    assert summarised


@pytest.mark.parametrize("text", ["ok", "a" * 3000, "日本語テスト漢字" * 60, "1234567 " * 100, "yes yes yes"])
async def test_text_that_leaves_nothing_to_summarise_does_not_hold_up_the_rest(config, text):
    async with ConversationSummaryMemory(
        {**config, "summarization_model": "offline", "buffer_window_size": 1, "summary_trigger_tokens": 20}
    ) as offline:
        await offline.store([{**m, "content": text} for m in talk(0, 6)])
        await offline.compact("s")
        assert covered(await offline.get_context("s"))[0][0] == 11


async def test_compact_waits_for_another_worker_s_claim(memory):
    await memory.store(talk(0, 20))
    await memory.drain()
    ref = SessionRef("s", "")
    state = await memory._ports.summaries.read(ref)
    now = datetime.now(UTC)
    until = now + timedelta(seconds=0.5)
    await memory._ports.summaries.claim(ref, after=state.covered, holder="one that died", until=until, now=now)
    assert await memory.compact("s") > 0
