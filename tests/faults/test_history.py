"""The checker of histories sees each thing that may go wrong. One that cannot fail would prove nothing."""

from dataclasses import replace

import pytest
from tests.faults.history import CANCELLED, UNAVAILABLE, Append, Down, Read, check, dump, parse, violations

TTL = 10.0
ROWS = {"s": [(1, "a"), (2, "b"), (3, "c"), (4, "d")]}
A = Append(call="1", process="p", session="s", ids=("a",), seqs=(1,), start=0.0, end=1.0)
B = Append(call="2", process="p", session="s", ids=("b",), seqs=(2,), start=2.0, end=3.0)
LOST = Append(call="3", process="q", session="s", ids=("c", "d"), start=4.0, end=5.0, problem=CANCELLED)
CD = Append(call="4", process="q", session="s", ids=("c", "d"), seqs=(3, 4), start=6.0, end=7.0)
AGAIN = Append(call="5", process="q", session="s", ids=("a",), seqs=(1,), start=8.0, end=9.0)
READ = Read(call="6", process="p", session="s", start=8.0, end=9.0, rows=((3, "c"), (4, "d")), last_seq=4, least=2)
STALE = Read(call="7", process="p", session="s", start=8.0, end=9.0, rows=((2, "b"),), last_seq=2, least=1)
FAILED = Read(call="8", process="q", session="s", start=8.0, end=9.0, problem=UNAVAILABLE)
GOOD = [A, B, LOST, CD, AGAIN, READ, FAILED]


def late(event, by):
    """The same, later."""
    return replace(event, call=f"{event.call}+{by}", start=event.start + by, end=event.end + by)


def test_a_good_history_is_good():
    check(GOOD, ROWS, ttl=TTL)
    check([], {}, ttl=TTL)
    check([A, B, LOST, CD, STALE, replace(READ, process="q")], ROWS, ttl=TTL)


@pytest.mark.parametrize("event", [*GOOD, Down(what="hot", start=1.0, end=2.5), replace(READ, marked="slow")])
def test_an_event_is_the_same_from_its_line(event):
    assert parse(dump(event)) == event
    assert "\n" not in dump(event)


def test_of_calls_that_overlap_either_may_be_first():
    check([replace(A, end=9.0), B, LOST, CD], {"s": [(1, "a"), (2, "b"), (3, "c"), (4, "d")]}, ttl=TTL)
    swapped = [replace(A, seqs=(2,), end=9.0), replace(B, seqs=(1,)), LOST, CD]
    check(swapped, {"s": [(1, "b"), (2, "a"), (3, "c"), (4, "d")]}, ttl=TTL)
    check([A, B, LOST, CD, replace(STALE, start=6.5)], ROWS, ttl=TTL)


def test_what_was_begun_and_cancelled_may_be_stored_or_not():
    check([A, B, LOST], ROWS, ttl=TTL)
    check([A, B, LOST], {"s": ROWS["s"][:2]}, ttl=TTL)


def test_sessions_have_seqs_of_their_own():
    other = [replace(e, session="t") for e in (A, B)]
    check([*GOOD, *other], {**ROWS, "t": ROWS["s"][:2]}, ttl=TTL)


DATABASE_DOWN = Down(what="database", start=5.5, end=9.5)
HOT_DOWN = Down(what="hot", start=7.5, end=12.0)
BROKEN = {
    "acknowledged and not stored": ("I1", GOOD, {"s": ROWS["s"][:3]}),
    "acknowledged as something else": ("I1", [A, replace(B, seqs=(5,)), LOST, CD], ROWS),
    "another session's row": ("I1", [*GOOD, replace(A, session="t")], ROWS),
    "stored twice": ("I2", GOOD, {"s": [*ROWS["s"], (5, "a")]}),
    "a retry was told another seq": ("I2", [*GOOD, replace(AGAIN, seqs=(5,))], ROWS),
    "half a batch acknowledged": ("I2", [A, B, LOST, replace(CD, seqs=(3,))], ROWS),
    "a gap": ("I3", [A, B], {"s": [(1, "a"), (3, "b")]}),
    "a seq twice": ("I3", [A, B], {"s": [(1, "a"), (1, "b")]}),
    "does not begin at one": ("I3", [B], {"s": [(2, "b")]}),
    "stored and never appended": ("I3", [A, B], ROWS),
    "reordered": ("I3", [replace(A, seqs=(2,)), replace(B, seqs=(1,))], {"s": [(1, "b"), (2, "a")]}),
    "reordered, the later one never acknowledged": (
        "I3",
        [replace(A, seqs=(2,)), replace(B, seqs=(), problem=UNAVAILABLE)],
        {"s": [(1, "b"), (2, "a")]},
    ),
    "a batch in another order": ("I3", [A, B, LOST], {"s": [(1, "a"), (2, "b"), (3, "d"), (4, "c")]}),
    "half a batch stored": ("I3", [A, B, LOST], {"s": ROWS["s"][:3]}),
    "a window with a gap": ("I4", [*GOOD, replace(READ, rows=((2, "b"), (4, "d")))], ROWS),
    "a window out of order": ("I4", [*GOOD, replace(READ, rows=((4, "d"), (3, "c")))], ROWS),
    "a window that lacks the end": ("I4", [*GOOD, replace(READ, rows=((2, "b"), (3, "c")))], ROWS),
    "a window with a phantom": ("I4", [*GOOD, replace(READ, rows=((3, "c"), (4, "x")))], ROWS),
    "another session's window": ("I4", [*GOOD, replace(READ, session="t")], ROWS),
    "less than was asked for": ("I4", [*GOOD, replace(READ, least=3)], ROWS),
    "read before it was appended": ("I4", [A, B, CD, replace(READ, start=1.0, end=2.0)], ROWS),
    "two reads that go backwards": ("I5", [A, B, LOST, CD, READ, late(STALE, 2)], ROWS),
    "an own write is missing": ("I5", [A, B, LOST, CD, replace(STALE, process="q")], ROWS),
    "an own retry is missing": ("I5", [A, B, LOST, CD, replace(B, process="q"), replace(FAILED, problem=None)], ROWS),
    "another's write is missing after the time to live": ("I6", [A, B, LOST, CD, late(STALE, TTL)], ROWS),
    "acknowledged while the database was down": ("I8", [*GOOD, DATABASE_DOWN], ROWS),
    "read while both were down": ("I9", [A, B, LOST, CD, replace(DATABASE_DOWN, start=7.2), READ, HOT_DOWN], ROWS),
    "another error than promised": ("I9", [*GOOD, replace(FAILED, problem="TimeoutError")], ROWS),
}


@pytest.mark.parametrize(("invariant", "history", "rows"), BROKEN.values(), ids=BROKEN)
def test_what_is_broken_is_found(invariant, history, rows):
    found = violations(history, rows, ttl=TTL)
    assert [line for line in found if line.startswith(invariant)], found
    with pytest.raises(AssertionError, match=invariant):
        check(history, rows, ttl=TTL)


def test_while_one_is_down_the_other_may_answer():
    check([A, B, LOST, CD, READ, replace(DATABASE_DOWN, start=7.2)], ROWS, ttl=TTL)
    check([*GOOD, HOT_DOWN, replace(DATABASE_DOWN, start=0.5, end=0.8)], ROWS, ttl=TTL)
