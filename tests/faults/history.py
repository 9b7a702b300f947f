"""What was asked of a message log, when, and what it answered; and whether all of that can be true.

The times of all processes are of one clock that never goes back, as `time.monotonic` is on one machine. A call took
effect at some moment between its start and its end; of two calls that overlap either may have been first.
"""

import json
from bisect import bisect_left
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from itertools import accumulate

CANCELLED = "cancelled"
UNAVAILABLE = "StoreUnavailable"
NEVER = float("inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Append:
    """One call of `append`: acknowledged with `seqs`, or ended by `problem`, an error's name or `CANCELLED`."""

    call: str
    process: str
    session: str
    ids: tuple[str, ...]
    start: float
    end: float
    seqs: tuple[int, ...] = ()
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """One call of `recent`: the (seq, id) it returned, or `problem`. `marked` is the error a good answer carried."""

    call: str
    process: str
    session: str
    start: float
    end: float
    rows: tuple[tuple[int, str], ...] = ()
    last_seq: int = 0
    least: int = 0  # messages the window asked for
    marked: str | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Down:
    """A time in which a server, `database` or `hot`, answered nobody."""

    what: str
    start: float
    end: float


_KINDS = {kind.__name__: kind for kind in (Append, Read, Down)}


def dump(event):
    """An event as a line of JSON."""
    return json.dumps({"kind": type(event).__name__, **asdict(event)})


def parse(line):
    """The event of such a line."""
    fields = _frozen(json.loads(line))
    return _KINDS[fields.pop("kind")](**fields)


def _frozen(value):
    if isinstance(value, dict):
        return {key: _frozen(each) for key, each in value.items()}
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def check(history, final_rows, *, ttl):
    """Fail with what is wrong with a history, if anything is.

    Args:
        history: The events, in any order.
        final_rows: {session: [(seq, id), ...]} as the database holds them in the end, read behind the store's back.
        ttl: Seconds a copy may be believed that a write elsewhere has passed by.
    """
    found = violations(history, final_rows, ttl=ttl)
    if found:
        of_each = dict(Counter(line[:2] for line in found))
        raise AssertionError("\n".join([f"{len(found)} violations {of_each}", *found[:20]]))


def violations(history, final_rows, *, ttl):
    """One line for each violation, beginning with the invariant's name."""
    history = list(history)
    sessions = {event.session for event in history if not isinstance(event, Down)} | set(final_rows)
    found = list(_wrong_errors(history))
    found += _answers_from_nowhere(history)
    for session in sorted(sessions):
        rows = list(final_rows.get(session, ()))
        appends = [e for e in history if isinstance(e, Append) and e.session == session]
        reads = [e for e in history if isinstance(e, Read) and e.session == session and not e.problem]
        found += _acknowledged_and_committed(appends, rows)
        found += _one_row_an_id(appends, rows)
        found += _in_order(appends, rows)
        found += _true_windows(appends, reads, rows)
        found += _never_backwards(appends, reads)
        found += _never_stale(appends, reads, ttl)
    return found


def _wrong_errors(history):
    for event in history:
        if not isinstance(event, Down) and event.problem not in {None, CANCELLED, UNAVAILABLE}:
            yield f"I9 {_name(event)} ended with {event.problem}"


def _answers_from_nowhere(history):
    database = [e for e in history if isinstance(e, Down) and e.what == "database"]
    hot = [e for e in history if isinstance(e, Down) and e.what == "hot"]
    both = [
        Down(what="both", start=max(d.start, h.start), end=min(d.end, h.end))
        for d in database
        for h in hot
        if max(d.start, h.start) < min(d.end, h.end)
    ]
    for event in history:
        if isinstance(event, Down) or event.problem:
            continue
        if isinstance(event, Append) and _within(event, database):
            yield f"I8 {_name(event)} was acknowledged while the database was down"
        if isinstance(event, Read) and _within(event, both):
            yield f"I9 {_name(event)} was answered while database and hot tier were down"


def _within(event, times):
    return any(time.start <= event.start and event.end <= time.end for time in times)


def _acknowledged_and_committed(appends, rows):
    stored = {identity: seq for seq, identity in rows}
    for event, identity, seq in _acknowledged(appends):
        if identity not in stored:
            yield f"I1 {identity} was acknowledged as {seq} by {_name(event)} but is not stored"
        elif stored[identity] != seq:
            yield f"I1 {identity} was acknowledged as {seq} by {_name(event)} but is stored as {stored[identity]}"


def _one_row_an_id(appends, rows):
    for identity, times in Counter(identity for _, identity in rows).items():
        if times > 1:
            yield f"I2 {identity} is stored {times} times"
    told = defaultdict(set)
    for _, identity, seq in _acknowledged(appends):
        told[identity].add(seq)
    for identity, seqs in told.items():
        if len(seqs) > 1:
            yield f"I2 {identity} was acknowledged as {sorted(seqs)}"
    for event in appends:
        if not event.problem and len(event.seqs) != len(event.ids):
            yield f"I2 {_name(event)} acknowledged {len(event.seqs)} of {len(event.ids)} messages"


def _in_order(appends, rows):
    seqs = [seq for seq, _ in rows]
    if seqs != list(range(1, len(rows) + 1)):
        missing = sorted(set(range(1, len(rows) + 1)) - set(seqs))
        yield f"I3 the stored seqs are not 1..{len(rows)}: missing {missing[:10]}"
    stored = {identity: seq for seq, identity in rows}
    begun, done, mates = _times(appends)
    for identity in stored.keys() - begun.keys():
        yield f"I3 {identity} is stored and was never appended"
    # What ended before another was first tried was committed before it, so its seq is lower.
    ended = sorted((end, stored.get(identity, 0), identity) for identity, end in done.items())
    highest = list(accumulate(((seq, identity) for _, seq, identity in ended), max))
    ends = [end for end, _, _ in ended]
    for identity, start in begun.items():
        before = bisect_left(ends, start)
        if identity in stored and before and highest[before - 1][0] >= stored[identity]:
            seq, earlier = highest[before - 1]
            yield f"I3 {identity} is {stored[identity]}, but {earlier}, acknowledged before it was begun, is {seq}"
    for ids in {batch for batch in mates.values() if batch}:  # ids that always came together
        places = [stored[identity] for identity in ids if identity in stored]
        if places and places != list(range(places[0], places[0] + len(ids))):
            yield f"I3 the batch {ids} was not stored as one: {places}"


def _times(appends):
    """By id: when it was first tried; when it was first acknowledged; the batch it always came in, if always one."""
    begun, done, mates = {}, {}, {}
    for event in appends:
        for identity in event.ids:
            begun[identity] = min(event.start, begun.get(identity, NEVER))
            mates[identity] = event.ids if mates.get(identity, event.ids) == event.ids else None
            if not event.problem:
                done[identity] = min(event.end, done.get(identity, NEVER))
    return begun, done, mates


def _true_windows(appends, reads, rows):
    stored = dict(rows)
    begun, _, _ = _times(appends)
    for event in reads:
        seqs = [seq for seq, _ in event.rows]
        if seqs != list(range(event.last_seq - len(seqs) + 1, event.last_seq + 1)):
            yield f"I4 {_name(event)} returned {seqs} as the end of 1..{event.last_seq}"
        elif len(seqs) < min(event.least, event.last_seq):
            yield f"I4 {_name(event)} returned {len(seqs)} messages of {event.last_seq}, asked for {event.least}"
        for seq, identity in event.rows:
            if stored.get(seq) != identity:
                yield f"I4 {_name(event)} returned {identity} as {seq}, where {stored.get(seq)} is stored"
            elif begun.get(identity, NEVER) > event.end:
                yield f"I4 {_name(event)} returned {identity} before it was appended"


def _never_backwards(appends, reads):
    """What a process has read, or was told of its own writes, is in each of its later reads."""
    for process in {event.process for event in reads}:
        own = [e for e in reads if e.process == process]
        known = [(e.end, e.last_seq, _name(e)) for e in own]
        known += [(e.end, seq, _name(e)) for e, _, seq in _acknowledged(appends) if e.process == process]
        yield from _older_than(known, own, 0.0, "I5")


def _never_stale(appends, reads, ttl):
    """What was acknowledged anywhere is in each read that began `ttl` later."""
    yield from _older_than([(e.end, seq, _name(e)) for e, _, seq in _acknowledged(appends)], reads, ttl, "I6")


def _older_than(known, reads, allowed, invariant):
    known = sorted(known)
    ends = [end for end, _, _ in known]
    highest = list(accumulate(((seq, call) for _, seq, call in known), max))
    for event in reads:
        before = bisect_left(ends, event.start - allowed)
        if before and highest[before - 1][0] > event.last_seq:
            seq, call = highest[before - 1]
            yield f"{invariant} {_name(event)} ended at {event.last_seq}, but {call} had already ended at {seq}"


def _acknowledged(appends):
    for event in appends:
        if not event.problem:
            for identity, seq in zip(event.ids, event.seqs, strict=False):
                yield event, identity, seq


def _name(event):
    return f"{type(event).__name__.lower()} {event.call} ({event.start:.3f}-{event.end:.3f})"
