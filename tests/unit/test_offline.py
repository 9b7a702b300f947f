import time
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_memory_plugins import anchors
from llm_memory_plugins.compression import compress
from llm_memory_plugins.ports import Summariser
from llm_memory_plugins.providers.offline import OfflineSummariser
from llm_memory_plugins.types import SummaryLine, Usage

AT = datetime(2024, 3, 9, tzinfo=UTC)
CHAT = [
    "Ann: Hi Ben! How are you? What's new?",
    "Ben: Hey Ann! I'm fine, thanks. I sold my old boat in Kiel last week because the harbour fee went up.",
    "Ann: Wow, that's great! You're so brave.",
    "Ben: Thank you, Ann! That means a lot to me.",
    "Ann: What will you do with the money?",
    "Ben: We're going to buy two bikes and ride from Oslo to Bergen in July.",
    "Ann: That sounds amazing! Have fun!",
    "Ben: My sister Petra is a nurse, and she doesn't like bikes at all.",
]


def tokens(text: str) -> int:
    return -(-len(text) // 4)


def lines(texts: Sequence[str]) -> list[SummaryLine]:
    return [SummaryLine(text, (seq,), AT) for seq, text in enumerate(texts, start=1)]


def test_facts_are_kept_and_pleasantries_are_not() -> None:
    summary = compress(CHAT, 200)
    assert "sold old boat in Kiel last week" in summary
    assert "two bikes" in summary
    assert "means a lot" not in summary
    assert "amazing" not in summary


def test_each_line_says_who_said_it() -> None:
    assert all(line.startswith(("Ann: ", "Ben: ")) for line in compress(CHAT, 300).splitlines())


def test_a_negation_is_never_dropped() -> None:
    assert "doesn't like bikes" in compress(CHAT[-1:], 200)


def test_a_statement_before_a_question_counts_as_one() -> None:
    chat = ["user: What do you think?", "user: My rent went up to $900 in May, can you help me with a letter?"]
    assert compress(chat, 40) == "user: rent went up to $900 in May"


def test_room_that_is_left_gives_clauses_back() -> None:
    turn = "Ben: I moved to Oslo in May. The flat is small. The view over the fjord is wide. My cat hides."
    assert len(compress([turn], 60)) < len(compress([turn], 500))
    assert "cat hides" in compress([turn], 500)


def test_the_same_again_is_said_once_when_room_is_short() -> None:
    said = "Ben: I sold the old boat in Kiel last week"
    other = "Ann: my sister works nights at the bakery"
    assert len(set(compress([said, said, other], 85).splitlines())) == 2


def test_code_is_left_out_and_a_long_message_becomes_several_lines() -> None:
    answer = "assistant: " + " ".join(
        f"The pump number {i} needs a new gasket and fresh oil in spring." for i in range(20)
    )
    summary = compress([answer, "user: Use this:\n```\nimport secrets_of_state\n```\nIt starts the pump."], 2000)
    assert "secrets_of_state" not in summary
    assert len(summary.splitlines()) > 2


@pytest.mark.parametrize(
    "text", ["我住在东京。我有两只猫。", "Я живу в Москве и люблю чай", "أعيش في القاهرة مع أختي", "🎉🎉🎉 party"]
)
def test_other_scripts_are_not_dropped(text: str) -> None:
    assert compress([f"Ann: {text}"], 200).startswith("Ann: ")


async def test_it_is_a_summariser() -> None:
    summariser: Summariser = OfflineSummariser(count=tokens)
    chosen, usage = await summariser.summarise(lines(CHAT), max_tokens=40)
    assert usage == Usage()
    assert sum(tokens(line.text + "\n") for line in chosen) <= 40
    assert [line.seqs for line in chosen] == sorted(line.seqs for line in chosen)
    assert all(0 <= line.weight <= 1 for line in chosen)
    assert {seq for line in chosen for seq in line.seqs} <= set(range(1, len(CHAT) + 1))


async def test_nothing_gives_nothing() -> None:
    summariser = OfflineSummariser(count=tokens)
    assert await summariser.summarise([], max_tokens=100) == ([], Usage())
    assert await summariser.summarise(lines(CHAT), max_tokens=0) == ([], Usage())


async def test_a_heavier_line_goes_first() -> None:
    light = SummaryLine("Ann: my cousin grows plums near Graz", (1,), AT, 0.1)
    heavy = SummaryLine("Ben: my cousin grows pears near Linz", (2,), AT, 0.9)
    chosen, _ = await OfflineSummariser(count=tokens).summarise([light, heavy], max_tokens=10)
    assert [line.seqs for line in chosen] == [(2,)]


async def test_a_long_history_is_summarised_in_seconds_beside_the_loop() -> None:
    history = lines([CHAT[i % len(CHAT)] + f" Ticket OPS-{i} is open." for i in range(5000)])
    began = time.perf_counter()
    chosen, _ = await OfflineSummariser(count=tokens).summarise(history, max_tokens=3000)
    repaired = anchors.repair(history, chosen)
    assert time.perf_counter() - began < 20
    assert anchors.missing(history, repaired) == ()


@settings(deadline=None)
@given(st.lists(st.text(max_size=120) | st.text(max_size=60).map("Ann: {}".format), max_size=8), st.integers(-5, 300))
def test_any_text_gives_a_summary_within_the_budget(texts: list[str], budget: int) -> None:
    summary = compress(texts, budget)
    assert len(summary) <= max(0, budget)
    assert compress(texts, budget) == summary


@settings(deadline=None)
@given(st.lists(st.sampled_from(CHAT) | st.text(max_size=60), max_size=12), st.integers(0, 120))
async def test_lines_come_in_order_from_the_lines_given(texts: list[str], budget: int) -> None:
    given_lines = lines(texts)
    chosen, _ = await OfflineSummariser(count=tokens).summarise(given_lines, max_tokens=budget)
    assert sum(tokens(line.text + "\n") for line in chosen) <= budget
    assert [line.seqs for line in chosen] == sorted(line.seqs for line in chosen)
    assert {line.seqs for line in chosen} <= {line.seqs for line in given_lines}
    assert all("\n" not in line.text for line in chosen)
