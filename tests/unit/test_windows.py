"""Windows over any history: a checker of its own says whether what `select` returns may be sent to a model."""

from collections import defaultdict
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from llm_memory_plugins.errors import BudgetError, ConfigError
from llm_memory_plugins.rendering import message_line
from llm_memory_plugins.tokens import counter
from llm_memory_plugins.types import Message, SessionStats, Tail, ToolCall, Window
from llm_memory_plugins.windows import cost, counted, covers, select, shortened

START = datetime(2026, 3, 1, 9, tzinfo=UTC)
ESTIMATE = counter("estimate")
COUNTERS = [ESTIMATE]
for name in ("o200k_base", "cl100k_base"):
    with suppress(ConfigError):  # its file is not on this machine
        COUNTERS.append(counter(name))

CALL_IDS = ("a", "b", "c")
TEXTS = st.one_of(
    st.sampled_from(["", " \n", "yes", "one\n\n/two.", "</memory>\nuser: hi", "x = [1];\n// {}", "ありがとう 👍🏽 "]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=25),
    st.integers(20, 300).map("words ".__mul__),
)
CALLS = st.lists(st.sampled_from(CALL_IDS), min_size=1, max_size=3, unique=True)
SAYING = st.sampled_from(["yes", "one\ntwo"]) | st.integers(1, 60).map("word ".__mul__)
NAMES = st.sampled_from([None, None, "Ann", "/root", "tool\nuser: x"])


def steps(texts, broken):
    """One after the other a session; `broken` ones hold what should not be there, but is."""
    roles = ["user", "user", "user", "assistant", *(["system"] if broken else [])]
    well = [
        st.tuples(st.sampled_from(roles), texts),
        st.tuples(st.just("user"), st.just("and now?")),
        st.tuples(st.just("exchange"), CALLS, st.permutations(CALL_IDS), texts),  # answered, in any order
    ]
    calls = st.tuples(st.just("calls"), CALLS, texts)  # answered late, in part, or never
    tools = st.tuples(st.just("tool"), st.sampled_from(CALL_IDS), texts)  # an orphan, a duplicate, or late
    return st.one_of(*well, *([calls, tools] if broken else []))


def say(seq, role, content="", **more):
    at = START + timedelta(seconds=10 * seq)
    return Message(id=f"m{seq}", session_id="s", role=role, content=content, created_at=at, seq=seq, **more)


def tail_of(messages, count=None):
    count = len(messages) if count is None else count
    return Tail(stats=SessionStats(session_id="s", message_count=count, last_seq=count), messages=tuple(messages))


@st.composite
def histories(draw, by=ESTIMATE, texts=TEXTS, broken=True):
    said = []

    def add(role, content="", **more):
        message = counted(say(len(said) + 1, role, content, **more), by)
        strange = replace(message, tokens=1, tokenizer="another")
        said.append(draw(st.sampled_from([message, message, strange])) if broken else message)

    length = draw(st.integers(0, 9))
    for kind, *what in draw(st.lists(steps(texts, broken), min_size=length, max_size=length + 3)):
        if kind in ("exchange", "calls"):
            add("assistant", draw(texts), tool_calls=tuple(ToolCall(c, "look", '{"q": 1}') for c in what[0]))
            for call in (c for c in what[1] if kind == "exchange" and c in what[0]):
                add("tool", what[-1], tool_call_id=call)
        elif kind == "tool":
            add("tool", what[1], tool_call_id=what[0])
        else:
            add(kind, what[0], name=draw(NAMES) if kind == "user" else None)
    return said


@st.composite
def windows(draw):
    kind = draw(st.sampled_from(["turns", "tokens", "time"]))
    size = draw(st.integers(1, 6) if kind == "turns" else st.integers(1, 400))
    return Window(kind, size, now=START + timedelta(seconds=draw(st.integers(0, 400))) if kind == "time" else None)


def cut(messages, at):
    """What a store returns when it reads from position `at` on."""
    gone, kept = messages[:at], messages[at:]
    opening = next((m for m in reversed(gone) if m.role == "user"), None)
    system = next((m for m in reversed(gone) if m.role == "system"), None)
    return replace(
        tail_of(kept, len(messages)), opening=None if kept[:1] and kept[0].role == "user" else opening, system=system
    )


def reference(tail):
    """The turns of a tail as lists of groups, by another algorithm; the first may lack its user message."""
    unanswered, calls, results = defaultdict(list), {}, defaultdict(list)
    for m in tail.messages:
        for call in m.tool_calls:
            unanswered[call.id].append(m.id)
            calls[m.id] = len(m.tool_calls)
        if m.role == "tool" and unanswered[m.tool_call_id]:
            results[unanswered[m.tool_call_id].pop()].append(m)
    groups = [
        [m, *results[m.id]]
        for m in tail.messages
        if m.role in ("user", "assistant")
        and (len(results[m.id]) == calls[m.id] if m.tool_calls else bool(m.content.strip() or m.payload))
    ]
    turns = []
    if tail.opening and not (groups and groups[0][0].role == "user"):
        turns.append([[tail.opening]])
    for group in groups:
        if not turns or group[0].role == "user":
            turns.append([])
        turns[-1].append(group)
    return turns


def flat(turns):
    return [m.id for turn in turns for group in turn for m in group]


def check_conversation(chosen):
    """Sections 2 to 7 and 10 of what providers ask for."""
    body = [m for m in chosen if m.role != "system"]
    assert [m.role for m in chosen].index("system") == 0 if len(body) < len(chosen) else True
    assert len(chosen) - len(body) <= 1, "one system message"
    if any(m.role == "user" for m in body):
        assert body[0].role == "user"
    pending = []
    for m in body:
        if m.role == "tool":
            assert m.tool_call_id in pending, "an orphan"
            pending.remove(m.tool_call_id)
        else:
            assert not pending, "a call is not answered directly"
            pending = [call.id for call in m.tool_calls]
            assert m.content.strip() or m.tool_calls or m.payload, "an empty message"
    assert not pending, "a call is not answered"
    order = [m.seq for m in body if m.role != "tool"]
    assert order == sorted(set(order))
    return body


def check_accounting(chosen, selection, tail):
    gone = [d for d in selection.dropped if not d.reason.startswith("shortened")]
    assert len(chosen) + sum(d.count for d in gone) == tail.stats.message_count
    named = [identity for d in gone for identity in d.ids]
    assert len(named) == len(set(named))
    assert set(named).isdisjoint(m.id for m in chosen)
    assert all(len(d.ids) == d.count for d in gone if d.ids)
    originals = {m.id: m for m in (tail.opening, tail.system, *tail.messages) if m}
    cut_short = {identity for d in selection.dropped if d.reason.startswith("shortened") for identity in d.ids}
    for m in chosen:
        if m != originals[m.id]:
            assert m.id in cut_short
            assert m.content.endswith("[shortened]")
            assert originals[m.id].content.startswith(m.content.removesuffix(" … [shortened]"))
            assert m.payload is None


def check(selection, tail, window, budget, by):
    chosen = selection.messages
    body = check_conversation(chosen)
    check_accounting(chosen, selection, tail)
    limits = [n for n in (budget, window.size if window.kind == "tokens" else None) if n is not None]
    assert selection.tokens == sum(by.count(message_line(m)) for m in chosen)
    assert by.count("".join(map(message_line, chosen))) <= selection.tokens <= min([*limits, selection.tokens])

    turns = reference(tail)
    if len(turns) > 1 and turns[0][0][0].role != "user":
        turns = turns[1:]  # before anybody asked anything
    if not turns:
        assert not body
        return
    asked = [m for m in body if m.role == "user"]
    newest = [group[0] for group in turns[-1] if group[0].role == "user"]
    assert [m.id for m in asked[-1:]] == [m.id for m in newest], "the newest user message is there"
    # A turn is whole when its user message is in `messages` (or the session has none before it).
    first_is_whole = turns[0][0][0] is not tail.opening
    price = [sum(cost(m, by) for group in turn for m in group) for turn in turns]
    n = max(1, len(asked))
    if [m.id for m in body] == flat(turns[-n:]):
        assert n == 1 or n < len(turns) or first_is_whole
        if n < len(turns) and (n + 1 < len(turns) or first_is_whole):  # one more would not have been right
            at = turns[-n - 1][0][0].created_at
            too_old = window.kind == "time" and at < window.now - timedelta(seconds=window.size)
            enough = window.kind == "turns" and n >= window.size
            assert too_old or enough or selection.tokens + price[-n - 1] > min(limits)
        if window.kind == "turns":
            assert n <= window.size
    else:  # only the newest turn may lose its middle, and only when it is too large
        assert n == 1
        kept, groups = [m.id for m in body[len(asked) :]], turns[-1][len(newest) :]
        assert min(limits) < price[-1] + sum(cost(m, by) for m in chosen if m.role == "system")
        suffixes = [flat([groups[i:]]) for i in range(len(groups) + 1)]
        assert kept in suffixes
        if kept != suffixes[0] and not any("shortened to fit" in d.reason for d in selection.dropped):
            before = groups[suffixes.index(kept) - 1]
            assert selection.tokens + sum(cost(m, by) for m in before) > min(limits)


@settings(max_examples=250, deadline=None)
@given(st.data(), windows(), st.none() | st.integers(1, 500), st.sampled_from(COUNTERS))
def test_a_window_is_a_valid_conversation(data, window, budget, by):
    messages = data.draw(histories(by))
    inside = [i for i, m in enumerate(messages) if m.role != "user"]
    tail = cut(messages, data.draw(st.sampled_from([0, len(messages), *inside])))
    if data.draw(st.sampled_from([True, False, False])):  # at the very edge of what fits
        newest = data.draw(st.integers(1, max(1, len(messages))))
        budget = max(1, sum(cost(m, by) for m in messages[-newest:]) + data.draw(st.integers(-1, 1)))
    if tail.opening and not tail.opening.content.strip():
        tail = tail_of(messages)
    try:
        selection = select(tail, window, counter=by, max_tokens=budget)
    except BudgetError:
        total = min(n for n in (budget, window.size if window.kind == "tokens" else None) if n is not None)
        newest = next(t[0][0] for t in reversed(reference(tail)) if t[0][0].role == "user")
        assert cost(newest, by) > total - total // 2, "the system message takes half at most; the question would fit"
        assert shortened(newest, total // 2, by) is None
        return
    check(selection, tail, window, budget, by)


@settings(max_examples=250, deadline=None)
@given(histories(texts=SAYING, broken=False), windows(), st.none() | st.integers(1, 200), st.data())
def test_a_copy_that_covers_serves_as_well_as_the_whole_session(messages, window, limit, data):
    window = replace(window, max_tokens=limit)
    starts = [i for i in range(len(messages) + 1) if not messages[i:] or messages[i].role != "tool"]
    copy = cut(messages, data.draw(st.sampled_from(starts)))
    if not covers(copy, window):
        return
    budget = limit or data.draw(st.none() | st.integers(1, 200))
    with suppress(BudgetError):
        expected = select(tail_of(messages), window, counter=ESTIMATE, max_tokens=budget)
        assert select(copy, window, counter=ESTIMATE, max_tokens=budget).messages == expected.messages
