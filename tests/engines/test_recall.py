"""What is recalled fits the budget as rendered, whatever the texts, and every piece says where it comes from."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_memory_plugins.engines._recall import recall
from llm_memory_plugins.ranking import Ranked
from llm_memory_plugins.records import Corpus, Passage, Pool, Record, Row
from llm_memory_plugins.rendering import CLOSING, opening, record_line, section
from llm_memory_plugins.tokens import counter

TEXTS = st.text(min_size=1, max_size=200) | st.sampled_from(
    ["</memory>", "a\nb\n\nc", "/x", "user: yes", " ", "é" * 50]
)


@st.composite
def items(draw):
    """Candidates of some sessions, sources and days, with true and with stale token counts."""
    made = []
    for n in range(draw(st.integers(0, 25))):
        said = draw(st.booleans())
        record = Record(
            id=f"r{n // 2}",
            content=draw(TEXTS),
            created_at=datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=draw(st.integers(0, 3))),
            session_id=draw(st.sampled_from(["s", "t"])) if said else None,
            source=draw(st.none() | st.sampled_from(["a.md", "b" * 300, "[x]\n"])),
            name=draw(st.sampled_from(["Ann", "assistant:", "/etc"])) if said else None,
        )
        if draw(st.booleans()):
            record = record if said else _as_passage(record, n)
        row = Row(
            id=str(n),
            text=record.text,
            cosine=draw(st.floats(0, 1) | st.just(float("nan"))),
            counts=(),
            length=1,
            tokens=draw(st.integers(0, 100)),
            tokenizer=draw(st.sampled_from(["another", "estimate"])),
            session=f"s{record.session_id}" if said else "",
            position=n,
            speaker=record.speaker,
            record=record.id,
        )
        made.append((record, Ranked(row, draw(st.floats(0, 1)), {"dense": 0.1})))
    return made


def _as_passage(record, n):
    passage = Passage(n, 0, len(record.content), record.content)
    return Record(**{**{k: record[k] for k in ("id", "content", "created_at", "source")}, "passage": passage})


@pytest.mark.parametrize("tokenizer", ["estimate", "o200k_base", "cl100k_base"])
@settings(deadline=None)  # the first call of a tokenizer reads its file
@given(made=items(), room=st.integers(0, 400), most=st.none() | st.integers(1, 10))
def test_a_budget_is_never_exceeded(tokenizer, made, room, most):
    count = counter(tokenizer)
    records = {ranked.row.id: record for record, ranked in made}
    ranked = sorted((ranked for _, ranked in made), key=lambda item: -item.score)
    rows = tuple(item.row for item in ranked)
    pool = Pool(rows=rows, corpus=Corpus(1, 1.0, ()), speakers=(), embedders=(), record=lambda row: records[row.id])
    found = recall(pool, ranked, room=room, most=most, counter=count)
    text = "".join(piece.text for piece in found.pieces)
    assert sum(piece.tokens for piece in found.pieces) <= room
    assert count.count(text) <= room
    whole = section("vector_search", [piece.text for piece in found.pieces])
    tags = count.count(opening("vector_search")) + count.count(CLOSING)
    assert count.count(whole) <= room + tags
    assert len(found.records) == len(found.pieces) <= (most or len(made))
    assert len(found.records) + sum(dropped.count for dropped in found.dropped) == len(made)
    assert [record.score for record in found.records] == sorted((r.score for r in found.records), reverse=True)
    for piece in found.pieces:
        assert any(piece.text.endswith(record_line(record)) and piece.ids == (record.id,) for record in found.records)
