"""How likely a message is to be asked about later, judged from its form alone: no model, no question in sight.

People ask about what somebody stated of themselves: what happened, when, where, with whom, what they have and like and
plan. They do not ask about greetings, thanks, compliments, encouragement and questions back. Where a message stands
helps as much as its words: it answers a question, or uses words that nobody has used lately.

The score is the rate of a log-linear (Poisson) model. Its weights are round numbers near those fitted to conversations
between friends; fitted on some of these and tested on others, the model chooses about as well. No feature knows a topic
or a name.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from llm_memory_plugins.telegraphic import Clause
from llm_memory_plugins.text import word_set, words

__all__ = ["Reader"]


_FIRST = word_set("i my me we our us i'm i've i'd i'll we're we've we'll mine myself ourselves")
_SECOND = word_set("you your you're you've you'll yours yourself")
_WHEN = word_set(
    """yesterday today tonight tomorrow ago last next week weeks month months year years day days weekend morning
    afternoon evening night monday tuesday wednesday thursday friday saturday sunday january february march april june
    july august september october november december summer winter spring fall autumn recently lately since birthday
    anniversary daily weekly deadline"""
)
_NUMBERS = word_set(
    """two three four five six seven eight nine ten eleven twelve twenty thirty hundred thousand million first second
    third fourth once twice couple dozen half both"""
)
_PLEASANT = word_set(
    """great awesome amazing wonderful fantastic incredible cool nice beautiful lovely inspiring proud happy glad
    excited fun good perfect best gorgeous stunning impressive adorable cute sweet congrats congratulations thanks thank
    appreciate welcome sorry luck sounds looks"""
)
_GENERAL = word_set(
    """support keep always here believe matter help helps means learn journey dreams life important moments things
    everyone people world strength courage inspire together positive hope goals effort difference"""
)
_IRREGULAR = word_set(
    """went got had did saw took made found bought met came gave told said started lost won left felt began read wrote
    built sold taught thought became ran ate drove flew kept brought grew knew heard held spent drew slept sent paid"""
)
_RECENT = 100
"""A word is new again when nobody used it in so many passages."""


class Reader:
    """Reads passages in order and says of each how likely it is to be asked about.

    It remembers who spoke last, whether that was a question, and which words were used recently.
    """

    def __init__(self) -> None:
        self._heard: dict[str, int] = {}
        self._count = 0
        self._speaker = ""
        self._asked = False

    def rate(self, speaker: str, clauses: Sequence[Clause]) -> float:
        """The expected number of later questions about a passage, on no particular scale; above 0.

        Args:
            speaker: Who says it.
            clauses: The passage, as `telegraphic.parse` gives it.
        """
        told = [clause for clause in clauses if not clause.question]
        content = frozenset[str]().union(*(clause.content for clause in clauses))
        score = -5.25 if content else -12.0
        score += 0.5 * math.log1p(len(content))
        score += 0.3 * min(8.0, _mean(map(len, content)))
        score += 0.6 * (self._asked and speaker != self._speaker)
        score += 1.0 * self._novelty(content)
        score += 0.3 * min(3, sum(clause.protected for clause in told))
        score -= 0.7 * _share_of_questions(clauses)
        score += _wording([word for clause in told for word in words(clause.source)])
        self._hear(speaker, clauses, content)
        return math.exp(score)

    def _novelty(self, content: frozenset[str]) -> float:
        since = self._count - _RECENT
        return sum(self._heard.get(word, since) <= since for word in content) / max(1, len(content))

    def _hear(self, speaker: str, clauses: Sequence[Clause], content: frozenset[str]) -> None:
        self._count += 1
        self._heard.update(dict.fromkeys(content, self._count))
        asked = any(clause.question for clause in clauses)
        self._asked = asked or (self._asked and speaker == self._speaker)
        self._speaker = speaker


def _wording(told: Sequence[str]) -> float:
    """What the words of the statements add: the speaker's own affairs and times up, pleasantries down."""
    found = {
        group: sum(word in group for word in told)
        for group in (_FIRST, _SECOND, _WHEN, _NUMBERS, _PLEASANT, _GENERAL, _IRREGULAR)
    }
    past = found[_IRREGULAR] + sum(len(word) > 4 and word.endswith("ed") for word in told)
    return (
        0.5 * min(1, found[_FIRST])
        - 0.15 * min(3, found[_SECOND])
        + 0.3 * min(2, found[_WHEN])
        + 0.2 * min(2, found[_NUMBERS])
        + 0.1 * min(3, past)
        - 0.2 * min(3, found[_GENERAL])
        - 2.0 * found[_PLEASANT] / max(3, len(told))
    )


def _share_of_questions(clauses: Sequence[Clause]) -> float:
    asked = {clause.sentence for clause in clauses if clause.question}
    return len(asked) / max(1, len({clause.sentence for clause in clauses}))


def _mean(values: Iterable[int]) -> float:
    numbers = list(values)
    return sum(numbers) / max(1, len(numbers))
