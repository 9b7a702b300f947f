"""The edges of windows one by one: what is shortened, what has expired, what begins before the tail."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from llm_memory_plugins.errors import BudgetError
from llm_memory_plugins.rendering import message_line
from llm_memory_plugins.tokens import EstimatingCounter
from llm_memory_plugins.types import Message, SessionStats, Tail, ToolCall, Window
from llm_memory_plugins.windows import cost, counted, covers, select, shortened

START = datetime(2026, 3, 1, 9, tzinfo=UTC)
ESTIMATE = EstimatingCounter()
TURNS = Window("turns", 10)


def say(seq, role, content="", **more):
    at = START + timedelta(seconds=10 * seq)
    message = Message(id=f"m{seq}", session_id="s", role=role, content=content, created_at=at, seq=seq, **more)
    return counted(message, ESTIMATE)


def call(seq, *ids):
    return say(seq, "assistant", tool_calls=tuple(ToolCall(i, "look") for i in ids))


def result(seq, answers, content="found"):
    return say(seq, "tool", content, tool_call_id=answers)


def chat(turns, first=1):
    pairs = [(say(i, "user", f"question {i}"), say(i + 1, "assistant", "answer")) for i in range(first, 2 * turns, 2)]
    return [message for pair in pairs for message in pair]


def tail_of(messages, count=None, **more):
    stats = SessionStats(session_id="s", message_count=len(messages) if count is None else count)
    return Tail(stats=stats, messages=tuple(messages), **more)


def ids(selection):
    return [m.id for m in selection.messages]


def reasons(selection):
    return {d.reason: d.count for d in selection.dropped}


def select_(messages, window=TURNS, **more):
    return select(messages if isinstance(messages, Tail) else tail_of(messages), window, counter=ESTIMATE, **more)


def test_the_window_counts_turns_tokens_or_seconds():
    messages = chat(4)
    assert ids(select_(messages, Window("turns", 2))) == ["m5", "m6", "m7", "m8"]
    two_turns = sum(m.tokens for m in messages[4:])
    assert ids(select_(messages, Window("tokens", two_turns))) == ["m5", "m6", "m7", "m8"]
    assert ids(select_(messages, Window("tokens", two_turns - 1))) == ["m7", "m8"]
    at = messages[4].created_at + timedelta(seconds=60)
    assert ids(select_(messages, Window("time", 60, now=at))) == ["m5", "m6", "m7", "m8"]
    assert ids(select_(messages, Window("time", 59, now=at))) == ["m7", "m8"]
    assert ids(select_(messages, Window("time", 1, now=START + timedelta(days=9)))) == ["m7", "m8"], "never empty"


def test_nothing_was_said():
    assert select_([]).messages == ()
    assert select_([]).dropped == ()
    assert select_([], max_tokens=1).tokens == 0


def test_why_messages_are_left_out():
    messages = [
        say(1, "assistant", "welcome"),
        say(2, "user", "hi"),
        say(3, "assistant", " \n"),
        result(4, "unasked"),
        call(5, "never", "half"),
        result(6, "half"),
        say(7, "system", "old rules"),
        say(8, "system", "new rules"),
    ]
    selection = select_(messages)
    assert ids(selection) == ["m8", "m2"]
    assert reasons(selection) == {
        "before the first user message": 1,
        "it says nothing": 1,
        "a tool result without its call": 1,
        "a tool call without all its results": 2,
        "a newer system message replaces it": 1,
    }


def test_what_was_not_read_is_counted_as_older():
    older = reasons(select_(tail_of(chat(3, first=5), count=500), Window("turns", 1)))
    assert older == {"older than the window": 498}
    assert reasons(select_(chat(3), max_tokens=12)) == {"older than what fits": 4}


def test_results_move_up_to_their_own_call_when_an_id_is_used_again():
    messages = [
        *(say(1, "user", "one"), call(2, "a"), result(3, "a", "first")),
        *(say(4, "user", "two"), call(5, "a", "b"), say(6, "user", "three"), result(7, "b"), result(8, "a", "second")),
        result(9, "a", "again"),
    ]
    selection = select_(messages)
    assert ids(selection) == ["m1", "m2", "m3", "m4", "m5", "m7", "m8", "m6"]
    assert reasons(selection) == {"a tool result without its call": 1}


def test_a_message_whose_payload_says_something_is_not_empty():
    assert ids(select_([say(1, "user", "", payload={"image": b"\x89PNG"})])) == ["m1"]


def test_the_newest_turn_loses_its_middle_alone():
    messages = [say(1, "user", "go"), *(m for i in range(2, 12, 2) for m in (call(i, f"c{i}"), result(i + 1, f"c{i}")))]
    exchange = messages[1].tokens + messages[2].tokens
    selection = select_([*chat(1), *messages], max_tokens=messages[0].tokens + 2 * exchange + 1)
    assert ids(selection) == ["m1", "m8", "m9", "m10", "m11"]
    assert reasons(selection)["the middle of the newest turn does not fit"] == 6


def test_results_too_large_for_the_newest_turn_are_shortened_alike():
    big = "data " * 500
    messages = [say(1, "user", "go"), call(2, "a", "b", "c"), result(3, "a", big), result(4, "b"), result(5, "c", big)]
    selection = select_(messages, max_tokens=100)
    assert ids(selection) == ["m1", "m2", "m3", "m4", "m5"]
    assert selection.tokens <= 100
    assert [m.content.endswith("[shortened]") for m in selection.messages] == [False, False, True, False, True]
    assert select_(messages, max_tokens=30).messages == (messages[0],), "shares too small for any word"


def test_the_newest_question_is_shortened_or_the_budget_is_refused():
    question = say(1, "user", "please " * 100, payload={"the": "whole text"})
    (kept,) = select_([question], max_tokens=20).messages
    assert kept.content.startswith("please please")
    assert kept.payload is None
    assert kept.tokens <= 20
    with pytest.raises(BudgetError, match=r"leaves 4 tokens .* newest user message .* max_total_tokens"):
        select_([question], max_tokens=4)
    with pytest.raises(BudgetError):
        select_([question], Window("tokens", 4))


def test_a_system_message_takes_half_of_the_budget_at_most():
    rules, question = say(1, "system", "rule " * 100), say(2, "user", "hi")
    selection = select_([rules, question], max_tokens=40)
    assert [m.role for m in selection.messages] == ["system", "user"]
    assert selection.messages[0].tokens <= 20
    assert "shortened: it took more than half of the budget" in reasons(selection)
    assert ids(select_([rules, question], max_tokens=500)) == ["m1", "m2"]
    assert ids(select_([rules, question], max_tokens=6)) == ["m2"], "too little room even for a shortened one"


def test_a_turn_begun_before_the_tail_is_whole_only_as_the_newest():
    opening, rules = say(1, "user", "go"), say(0, "system", "rules")
    steps = [say(8, "assistant", "step"), say(9, "assistant", "done")]
    selection = select_(tail_of(steps, count=10, opening=opening, system=rules))
    assert ids(selection) == ["m0", "m1", "m8", "m9"]
    assert reasons(selection) == {"older than the window": 6}
    later = [say(10, "user", "next"), say(11, "assistant", "yes")]
    assert ids(select_(tail_of([*steps, *later], count=12, opening=opening))) == ["m10", "m11"]
    assert ids(select_(tail_of([], count=3, opening=opening))) == ["m1"]
    assert ids(select_(tail_of([result(9, "lost")], count=9, opening=opening))) == ["m1"]


def test_an_opening_that_says_nothing_is_no_message():
    steps = [say(8, "assistant", "step")]
    assert ids(select_(tail_of(steps, count=8, opening=say(7, "user", "")))) == ["m8"]


def test_expired_messages_are_gone():
    messages = [say(1, "system", "rules"), *chat(4, first=2)]
    since = messages[3].created_at
    assert ids(select_(messages, not_before=since)) == [m.id for m in messages[3:]]
    begun = tail_of(
        [say(8, "assistant", "step")], count=9, opening=say(1, "user", "go"), system=say(0, "system", "old")
    )
    assert ids(select_(begun, not_before=START + timedelta(seconds=30))) == ["m8"]


def test_turns_not_yet_summarised_stay_although_the_window_is_over():
    messages = chat(5)
    assert ids(select_(messages, Window("turns", 1), keep_after=6)) == ["m7", "m8", "m9", "m10"]
    assert ids(select_(messages, Window("turns", 1), keep_after=5)) == ["m5", "m6", "m7", "m8", "m9", "m10"]
    assert ids(select_(messages, Window("turns", 1), keep_after=10)) == ["m9", "m10"]
    assert ids(select_(messages, Window("turns", 1), keep_after=0, max_tokens=12)) == ["m9", "m10"]


@pytest.mark.parametrize("limit", range(0, 40))
def test_shortened_uses_the_room_it_is_given(limit):
    message = say(1, "user", "abcd " * 100)
    cut = shortened(message, limit, ESTIMATE)
    if limit < 6:  # `user:  … [shortened]`
        assert cut is None
    else:
        assert cut is not None
        assert limit - 1 <= cut.tokens == ESTIMATE.count(message_line(cut)) <= limit
        assert (cut.id, cut.seq, cut.created_at) == (message.id, message.seq, message.created_at)


def test_cost_believes_its_own_tokenizer_alone():
    message = say(1, "user", "four and twenty blackbirds")
    assert (message.tokens, message.tokenizer) == (ESTIMATE.count(message_line(message)), "estimate")
    assert cost(replace(message, tokens=99), ESTIMATE) == 99
    assert cost(replace(message, tokens=99, tokenizer="other"), ESTIMATE) == message.tokens
    assert select_([replace(message, tokens=99, tokenizer="other")]).tokens == message.tokens


def test_covers():
    messages = chat(4)
    part = tail_of(messages[4:], count=8)
    at = messages[-1].created_at
    assert covers(tail_of(messages), Window("turns", 100))
    assert covers(part, Window("turns", 2))
    assert not covers(part, Window("turns", 3))
    held = sum(m.tokens for m in part.messages)
    assert covers(part, Window("tokens", held))
    assert not covers(part, Window("tokens", held + 1))
    assert covers(part, Window("turns", 3, max_tokens=held))
    assert covers(part, Window("time", 29, now=at))
    assert not covers(part, Window("time", 30, now=at)), "an older message may be as new as that"
    assert not covers(tail_of([], count=8), Window("time", 1, now=at))


def test_a_copy_cut_between_a_call_and_its_results_does_not_cover():
    messages = [say(1, "user", "go"), call(2, "a"), result(3, "a", "data " * 200)]
    copy = tail_of(messages[2:], count=3, opening=messages[0])
    window = Window("turns", 5, max_tokens=100)
    assert not covers(copy, window) or select_(copy, window, max_tokens=100) == select_(
        messages, window, max_tokens=100
    )


def test_the_tokens_of_what_is_left_out_add_up():
    messages = [say(1, "assistant", "welcome"), *chat(3, first=3), result(9, "unasked")]
    every = sum(m.tokens for m in messages)
    stats = SessionStats(session_id="s", message_count=20, tokens=every + 500)
    selection = select_(Tail(stats=stats, messages=tuple(messages)), Window("turns", 1))
    assert selection.tokens + sum(d.tokens for d in selection.dropped) == every + 500
