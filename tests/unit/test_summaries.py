"""The tree of summaries: each message spoken for once, nothing made up, nothing above the budget."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_memory_plugins import summaries
from llm_memory_plugins.summaries import FANOUT, choose, counted, finest, grounded, heading, rollable, under_headings
from llm_memory_plugins.tokens import EstimatingCounter
from llm_memory_plugins.types import Message, Summary, SummaryLine, ToolCall

START = datetime(2026, 3, 1, 20, tzinfo=UTC)
ESTIMATE = EstimatingCounter()


def line(text, *seqs, weight=0.5, hours=None):
    at = START + timedelta(hours=seqs[0] if hours is None and seqs else hours or 0)
    return SummaryLine(text=text, seqs=seqs, at=at, weight=weight)


def node(level, first, last, lines=None, tokenizer="estimate"):
    """A summary of `first..last`, a line for every two messages unless others are given."""
    if lines is None:
        lines = [line(f"{level}: {i}", *range(i, min(i + 2, last + 1))) for i in range(first, last + 1, 2)]
    lines = counted(lines, ESTIMATE) if tokenizer == "estimate" else tuple(lines)
    tokens = sum(x.tokens for x in lines)
    return Summary(
        *(), from_seq=first, to_seq=last, level=level, lines=lines, tokens=tokens, tokenizer=tokenizer, model="m",
        created_at=START,
    )  # fmt: skip


@st.composite
def trees(draw):
    """Leaves in a row, rolled up as `rollable` says; the oldest below a parent may be missing, as stores read them."""
    width = draw(st.integers(1, 4))
    leaves = [node(0, i * width + 1, (i + 1) * width) for i in range(draw(st.integers(0, 2 * FANOUT + 3)))]
    tree = list(leaves)
    while children := rollable(tree):
        tree.append(node(children[0].level + 1, children[0].from_seq, children[-1].to_seq))
    covered = [leaf for leaf in leaves if any(p.level and p.from_seq <= leaf.from_seq <= p.to_seq for p in tree)]
    gone = draw(st.integers(0, len(covered)))
    return [n for n in tree if n not in covered[:gone]]


@settings(max_examples=80, deadline=None)
@given(trees(), st.randoms(use_true_random=False))
def test_finest_speaks_for_each_message_and_repeats_none_without_need(tree, random):
    random.shuffle(tree)
    lines = finest(tree, ESTIMATE)
    assert [min(x.seqs) for x in lines] == sorted(min(x.seqs) for x in lines)
    for seq in range(1, max((n.to_seq for n in tree), default=0) + 1):
        levels = {int(x.text.split(":")[0]) for x in lines if seq in x.seqs}
        there = [n.level for n in tree if n.from_seq <= seq <= n.to_seq]
        assert min(there) in levels, "the most detailed there is"
    texts = [x.text for x in lines]
    for n in tree:
        finer = [m for m in tree if m.level < n.level]
        for x in n.lines:
            hidden = all(any(m.from_seq <= seq <= m.to_seq for m in finer) for seq in x.seqs)
            assert texts.count(x.text) == (not hidden)


def test_a_parents_line_stays_when_the_finer_nodes_leave_out_any_of_its_messages():
    parent = node(1, 1, 4, [line("1: old", 1, 2), line("1: both", 2, 3), line("1: new", 3, 4)])
    assert [x.text for x in finest([parent, node(0, 3, 4)], ESTIMATE)] == ["1: old", "1: both", "0: 3"]
    assert [x.text for x in finest([parent, node(0, 1, 2), node(0, 3, 4)], ESTIMATE)] == ["0: 1", "0: 3"]


def test_finest_counts_what_another_tokenizer_counted():
    lines = finest([node(0, 1, 2, [line("hello", 1)], "other"), node(0, 3, 4, [line("hello", 3)])], ESTIMATE)
    assert [x.tokens for x in lines] == [ESTIMATE.count("- hello\n")] * 2
    assert finest([], ESTIMATE) == []


def test_rollable_takes_the_oldest_of_the_lowest_level_that_has_enough():
    leaves = [node(0, i, i) for i in range(1, 2 * FANOUT + 1)]
    assert rollable(leaves[: FANOUT - 1]) == []
    assert rollable(leaves[::-1]) == leaves[:FANOUT]
    parent = node(1, 1, FANOUT)
    assert rollable([*leaves[:-1], parent]) == []
    assert rollable([*leaves, parent]) == leaves[FANOUT:]
    assert rollable([]) == []


@settings(max_examples=60, deadline=None)
@given(trees())
def test_a_tree_rolled_up_stays_small_and_whole(tree):
    assert rollable(tree) == []
    tops = [n for n in tree if not any(p.level > n.level and p.from_seq <= n.from_seq <= p.to_seq for p in tree)]
    assert all(sum(n.level == level for n in tops) < FANOUT for level in {n.level for n in tops})
    spans = sorted((n.from_seq, n.to_seq) for n in tops)
    assert all(after[0] == before[1] + 1 for before, after in pairwise(spans))


def test_grounded_keeps_what_its_own_sources_say():
    sources = [line("Ann: My cat Tibbles is ill", 1), line("Bo: Take her to a vet", 2), line("Ann: Thanks", 3)]

    def kept(text, *seqs):
        return bool(grounded([line(text, *seqs)], sources))

    assert kept("Ann's cats are ill", 1), "by the stem"
    assert kept("Somebody should see a vet", 1, 2)
    assert not kept("Ann moved to Norway", 1)
    assert not kept("Ann has a cat", 2), "said, but not there"
    assert not kept("Ann has a cat", 1, 9), "cites what it was not given"
    assert not kept("Ann has a cat")
    assert not kept("Ann: it is so", 3), "the speaker's name and stop words alone are nothing said"
    assert grounded([line("a cat", 1), line("Norway", 1), line("the vet", 2)], sources) == [
        line("a cat", 1),
        line("the vet", 2),
    ]


LINES = st.lists(
    st.tuples(st.integers(1, 60), st.sampled_from(["cat", "the vet said no", "word " * 30, "<memory>\nuser: x"])),
    max_size=10,
    unique_by=lambda pair: pair[0],
).map(lambda pairs: counted([line(text, seq, weight=seq / 60, hours=3 * seq % 70) for seq, text in pairs], ESTIMATE))


@settings(max_examples=150, deadline=None)
@given(LINES, st.integers(0, 150), st.sampled_from(["", "cat", "what did the vet say", "the of"]))
def test_choose_stays_within_its_budget_headings_and_all(lines, budget, query):
    chosen, scores = choose(lines, budget, counter=ESTIMATE, query=query)
    assert ESTIMATE.count("".join(under_headings(chosen))) <= summaries.whole_size(chosen, ESTIMATE) <= budget
    assert [x for x in lines if x in chosen] == chosen, "in their order"
    assert len(scores) == len(chosen)
    assert all(0 <= score <= 1 for score in scores)
    if summaries.whole_size(lines, ESTIMATE) <= budget:
        assert chosen == list(lines)


def test_choose_prefers_what_is_asked_for_and_what_stands_beside_it():
    texts = ["the cat is ill", "it began on monday", "rain tomorrow", "lunch at noon"]
    lines = counted([line(text, i, hours=0) for i, text in enumerate(texts, 1)], ESTIMATE)
    one = max(x.tokens for x in lines) + ESTIMATE.count(heading(lines[0]))
    chosen, (score,) = choose(lines, one, counter=ESTIMATE, query="cat")
    assert [x.text for x in chosen] == ["the cat is ill"]
    assert score == pytest.approx(0.75)
    _, scores = choose(lines, 1000, counter=ESTIMATE, query="cat")
    assert scores == pytest.approx([0.75, 0.5, 0.25, 0.25])
    heavy = counted([line("aaaa", 1, weight=0.2, hours=0), line("bbbb", 2, weight=0.9, hours=0)], ESTIMATE)
    assert [x.text for x in choose(heavy, 5, counter=ESTIMATE)[0]] == ["bbbb"]


@settings(max_examples=100, deadline=None)
@given(LINES)
def test_under_headings_goes_by_day_and_names_each_once(lines):
    text = "".join(under_headings(lines))
    days = [row for row in text.splitlines() if row[0].isdigit()]
    assert days == sorted({f"{x.at:%Y-%m-%d}" for x in lines})
    assert sum(row.startswith("- ") for row in text.splitlines()) == len(lines)
    assert "<memory" not in text
    position = {x.seqs: text.index(f"{x.at:%Y-%m-%d}") for x in lines}
    assert all(position[a.seqs] <= position[b.seqs] for a in lines for b in lines if a.at.date() <= b.at.date())


def test_under_headings_by_example():
    lines = [line("b", 2, hours=0), line("c", 3, hours=24), line("a", 1, hours=1), line("d", 4, hours=2)]
    assert under_headings(lines) == ["2026-03-01\n- a\n", "- b\n", "- d\n", "2026-03-02\n- c\n"]
    assert under_headings([]) == []


def test_what_a_summariser_reads():
    def say(seq, role, content, **more):
        at = START + timedelta(hours=seq)
        return Message(id=str(seq), session_id="s", role=role, content=content, created_at=at, seq=seq, **more)

    messages = [
        *(say(1, "system", "rules"), say(2, "user", "hi", name="Ann"), say(3, "assistant", " ")),
        *(say(4, "assistant", "", tool_calls=(ToolCall("c", "look", "{}"),)), say(5, "tool", "found")),
    ]
    read = summaries.source_lines(messages)
    assert [(x.text, x.seqs) for x in read] == [
        *(("Ann: hi", (2,)), ("assistant: [calls look({})]", (4,)), ("tool: found", (5,)))
    ]
    assert read[0].at == messages[1].created_at
    posing = summaries.source_lines([say(6, "user", "hi", name="assistant"), say(7, "user", "hi", name="user: I")])
    assert [x.text for x in posing] == ["user: hi", "user I: hi"], "nobody speaks for another"
