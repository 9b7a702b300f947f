"""Ordering candidates by how well they answer a question. Pure.

The stores hand over a *pool*: the nearest texts by cosine, the best by BM25, and the neighbours of both. Everything
here is a function of that pool and a few statistics of the corpus, so all stores rank alike.

How a text is scored, and where each step comes from:

* **Fused by score, not by rank**: the cosine, and the BM25 score as a share of what an average text holding every word
  of the question once would have (Robertson & Zaragoza, The Probabilistic Relevance Framework, 2009). Where the words
  do not match, the lexical side adds nothing, instead of a best rank.
* **Evidence is united over neighbours**: each word of the question counts where it stands in a text or, for less, in
  the messages around it, once. Question and answer share the words in a conversation, and together hold them all. (A
  sum over neighbours, the usual smoothing, counts the same word again.)
* **Neighbours and session lift a text** (score smoothing: Diaz, Regularizing ad hoc retrieval scores, 2005).
* **Who, when**: the named speaker, whoever asks, the dates named, and how telling a text is by its form.

No signal is needed: a document without session, speaker and date is ranked by cosine and BM25 alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from llm_memory_plugins.queries import ASKERS, ROLES, Query
from llm_memory_plugins.records import Corpus, Row

__all__ = ["Corpus", "Ranked", "Row", "Weights", "bm25", "idf", "rank"]

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Weights:
    """How much each signal counts.

    Chosen by hand on two kinds of conversation, each judged by what was chosen on the rest; every optimum is flat.

    Attributes:
        dense: Of the cosine.
        lexical: Of the share of the question's words found, each weighed by its rarity.
        adjacent: A word in the message before or after counts so much of one in the text itself.
        asked: The same for the message before when it is somebody's question, which this text then answers.
        nearby: The same at a distance of two.
        smooth: Of the cosine of the message before, and of that after.
        session: Of the mean of the session's three best texts.
        speaker: For who is named in the question.
        asker: For the words of whoever asks, in a conversation with a model: what the model said can be said again.
        dated: For the days the question names.
        phrase: For what it has in quotation marks, word for word.
        telling: For a text of the kind that people ask about. Only for what somebody said.
        recency: For new texts, halved every `half_life_days`. Off unless asked for.
        importance: Of the importance a text was stored with, 0..1. Off unless asked for.
        k1: BM25: how soon a repeated word stops counting.
        b: BM25: how much longer texts are discounted.
        contrast: Packing takes the score to this power, as a stand-in for the chance that a text is wanted.
        least_tokens: Packing counts no text as shorter: what is that short hardly says anything.
    """

    dense: float = 0.8
    lexical: float = 0.75
    adjacent: float = 0.6
    asked: float = 1.0
    nearby: float = 0.3
    smooth: float = 0.15
    session: float = 0.25
    speaker: float = 0.4
    asker: float = 0.4
    dated: float = 0.5
    phrase: float = 0.3
    telling: float = 0.2
    recency: float = 0.0
    importance: float = 0.0
    half_life_days: float = 30.0
    k1: float = 1.2
    b: float = 0.75
    contrast: float = 4.0
    least_tokens: int = 40


DEFAULT = Weights()


@dataclass(frozen=True, slots=True)
class Ranked:
    """A candidate with its score.

    Attributes:
        score: 0..1; 1 would be a text for which every signal that the question allows is perfect.
        why: What each signal added to it; they sum to `score`.
    """

    row: Row
    score: float
    why: Mapping[str, float] = field(default_factory=dict[str, float])


def idf(corpus: Corpus) -> Floats:
    """The rarity of each query term, above 0 (the BM25 form, Robertson & Zaragoza 2009, with 1 added)."""
    held = np.minimum(np.asarray(corpus.frequencies, dtype=np.float64), corpus.total)
    return np.log1p((corpus.total - held + 0.5) / (held + 0.5))


def bm25(counts: NDArray[np.float64], lengths: Floats, corpus: Corpus, weights: Weights = DEFAULT) -> Floats:
    """What each term adds to the BM25 score of each text, in units of its idf times `k1` + 1: below 1.

    Args:
        counts: How often term j stands in text i; shape (texts, terms).
        lengths: Content words of each text.
        corpus: Statistics of all texts.
        weights: For `k1` and `b`.

    Returns:
        Shape (texts, terms). Times `idf` and `k1` + 1, and summed over the terms, it is the score.
    """
    relative = lengths / max(corpus.average_length, 1e-9)
    slow = weights.k1 * (1 - weights.b + weights.b * relative)
    return counts / np.maximum(counts + slow[:, None], 1e-9)


def rank(
    query: Query,
    rows: Sequence[Row],
    corpus: Corpus,
    weights: Weights = DEFAULT,
    *,
    threshold: float | None = None,
    now: datetime | None = None,
) -> list[Ranked]:
    """Order a pool, best first; ties by session, position and id, never by the order in which rows came.

    Args:
        query: The question.
        rows: The pool, each row once.
        corpus: Statistics, with one frequency a term of the query.
        weights: How much each signal counts.
        threshold: A cosine below it counts as none, and what matches neither by meaning nor by word is left out.
            None leaves nothing out: a text may be an answer for what stands around it alone.
        now: What recency counts from; the newest row when None.
    """
    if not rows:
        return []
    rows = sorted(rows, key=lambda row: (row.session, row.position, row.id))
    cosine = np.array([row.cosine for row in rows], dtype=np.float64)  # NaN where there is no vector
    near = cosine >= (-1.0 if threshold is None else threshold)
    dense = np.where(near, cosine, 0.0).clip(0.0, 1.0)
    lexical, matched = _lexical(rows, corpus, weights)
    fused = weights.dense * dense + weights.lexical * lexical
    parts: dict[str, tuple[float, Floats]] = {
        "dense": (weights.dense, dense),
        "lexical": (weights.lexical, lexical),
        "neighbours": (weights.smooth, np.sum([_at(dense, place) for place in _neighbours(rows, 1)], axis=0)),
        "session": (weights.session, _sessions(rows, fused)),
        "telling": (weights.telling, np.array([row.telling if row.speaker else 0.0 for row in rows])),
    }
    most = weights.dense + weights.lexical + 2 * weights.smooth + weights.telling
    most += weights.session * (weights.dense + weights.lexical)
    for name, weight, values in _lifts(query, rows, weights, now):
        parts[name] = (weight, values)
        most += weight
    shares = {name: weight * values / max(most, 1e-9) for name, (weight, values) in parts.items()}
    scores = np.sum(list(shares.values()), axis=0).clip(0.0, 1.0).round(9)
    keep = near | matched | (threshold is None)
    return [
        Ranked(rows[i], float(scores[i]), {name: float(share[i]) for name, share in shares.items() if share[i]})
        for i in map(int, np.argsort(-scores, kind="stable"))
        if keep[i]
    ]


def _lexical(rows: Sequence[Row], corpus: Corpus, weights: Weights) -> tuple[Floats, NDArray[np.bool_]]:
    """The share of the question's words found in and around each text, 0..1, and whether any is in it."""
    counts = np.array([row.counts for row in rows], dtype=np.float64).reshape(len(rows), -1)
    if not counts.shape[1]:
        return np.zeros(len(rows)), np.zeros(len(rows), dtype=np.bool_)
    own = bm25(counts, np.array([row.length for row in rows], dtype=np.float64), corpus, weights)
    before, after = _neighbours(rows, 1)
    asked = np.where(_answers(rows, before), weights.asked, weights.adjacent)[:, None]
    found = np.maximum(own, np.maximum(asked * _at(own, before), weights.adjacent * _at(own, after)))
    for place in _neighbours(rows, 2):
        found = np.maximum(found, weights.nearby * _at(own, place))
    rarity = idf(corpus)
    return np.minimum(1.0, found @ rarity / max(float(rarity.sum()) / 2, 1e-9)), counts.sum(axis=1) > 0


def _answers(rows: Sequence[Row], before: Ints) -> NDArray[np.bool_]:
    """Which rows answer another person's question. With a model it means nothing: all is asked there."""
    asks = ["?" in row.text and row.speaker.lower() not in ROLES for row in rows]
    places: list[int] = before.tolist()
    return np.array(
        [i >= 0 and asks[i] and rows[i].speaker != row.speaker for i, row in zip(places, rows, strict=True)]
    )


def _lifts(
    query: Query, rows: Sequence[Row], weights: Weights, now: datetime | None
) -> list[tuple[str, float, Floats]]:
    """Signals that only some questions and settings allow."""
    speakers = [row.speaker.lower() for row in rows]
    found: list[tuple[str, float, Floats]] = []
    if query.speakers:
        found.append(("speaker", weights.speaker, np.array([float(speaker in query.speakers) for speaker in speakers])))
    asked = np.array([speaker in ASKERS for speaker in speakers], dtype=np.float64)
    if query.of_asker and asked.any():
        found.append(("asker", weights.asker, asked))
    days = [row.created_at.date() if row.created_at else None for row in rows]
    if query.dates and any(days):
        near = {day: max(span.closeness(day) for span in query.dates) for day in set(days) if day}
        found.append(("dated", weights.dated, np.array([near[day] if day else 0.0 for day in days])))
    if query.phrases:
        quoted = [any(phrase in row.text.lower() for phrase in query.phrases) for row in rows]
        found.append(("phrase", weights.phrase, np.array(quoted, dtype=np.float64)))
    if weights.recency:
        found.append(("recency", weights.recency, _recency(rows, weights.half_life_days, now)))
    if weights.importance:
        important = np.nan_to_num(np.array([row.importance for row in rows], dtype=np.float64)).clip(0.0, 1.0)
        found.append(("importance", weights.importance, important))
    return found


def _recency(rows: Sequence[Row], half_life_days: float, now: datetime | None) -> Floats:
    seconds = np.array([_instant(row.created_at) for row in rows])
    known = seconds[np.isfinite(seconds)]
    if not known.size:
        return np.zeros(len(rows))
    age = np.maximum(0.0, (_instant(now) if now else known.max()) - seconds) / 86_400
    return np.exp2(-age / max(half_life_days, 1e-9))


def _instant(moment: datetime | None) -> float:
    if moment is None:
        return -math.inf
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _neighbours(rows: Sequence[Row], distance: int) -> tuple[Ints, Ints]:
    """For each row the places of those `distance` before and behind it in its session; -1 for none in the pool."""
    places = {(row.session, row.position): i for i, row in enumerate(rows) if row.session}
    before, after = ([places.get((row.session, row.position + d), -1) for row in rows] for d in (-distance, distance))
    return np.array(before, dtype=np.intp), np.array(after, dtype=np.intp)


def _at(values: Floats, places: Ints) -> Floats:
    """The values at some places; 0 where there is none."""
    padded = np.concatenate([values, np.zeros((1, *values.shape[1:]))])
    return padded[places]


def _sessions(rows: Sequence[Row], fused: Floats) -> Floats:
    """The mean of the three best of each row's session; 0 without a session. Rows come sorted by session."""
    found = np.zeros(len(rows))
    for session, group in groupby(range(len(rows)), key=lambda i: rows[i].session):
        members = list(group)
        if session:
            found[members] = np.sort(fused[members])[-3:].sum() / 3
    return found
