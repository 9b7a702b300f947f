"""Which of the ranked candidates go into a context of so many tokens. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from llm_memory_plugins.ranking import DEFAULT, Ranked, Weights

__all__ = ["pack"]


def pack(
    ranked: Sequence[Ranked],
    budget: int,
    costs: Sequence[int] | None = None,
    *,
    weights: Weights = DEFAULT,
    heading: int = 0,
    likeness: float = 0.9,
) -> list[Ranked]:
    """Choose by value for cost, skipping what does not fit and what nearly repeats something chosen.

    The value of a text is its score above the median of the pool, to the power `weights.contrast`, for its tokens
    (Dantzig's greedy knapsack, 1957): one long message does not push out many short ones.

    Args:
        ranked: The candidates, best first.
        budget: Tokens, never exceeded by the costs of what is chosen.
        costs: Tokens of each candidate as rendered; `row.tokens` when None.
        weights: For `contrast` and `least_tokens`.
        heading: Tokens that the first text of each session costs on top.
        likeness: Texts sharing this part of their distinct words are the same (Broder, 1997); above 1 keeps them all.

    Returns:
        The chosen ones, still best first.
    """
    prices = [max(0, cost) for cost in (costs if costs is not None else [item.row.tokens for item in ranked])]
    if not ranked:
        return []
    middle = sorted(item.score for item in ranked)[len(ranked) // 2]
    top = max(ranked[0].score - middle, 1e-9)

    def value(place: int) -> float:
        above = max(0.0, ranked[place].score - middle) / top
        return above**weights.contrast / max(weights.least_tokens, prices[place], 1)

    chosen: list[int] = []
    seen: list[frozenset[str]] = []
    sessions: set[str] = set()
    for place in sorted(range(len(ranked)), key=lambda place: (-value(place), place)):
        row = ranked[place].row
        price = prices[place] + (0 if row.session in sessions else heading)
        if price > budget:
            continue
        words = frozenset(row.text.lower().split())
        if any(_alike(words, other, likeness) for other in seen):
            continue
        budget -= price
        sessions.add(row.session)
        seen.append(words)
        chosen.append(place)
    return [ranked[place] for place in sorted(chosen)]


def _alike(left: frozenset[str], right: frozenset[str], likeness: float) -> bool:
    """Whether the Jaccard coefficient reaches `likeness`; decided by size alone where that is enough."""
    small, large = sorted((len(left), len(right)))
    return small >= likeness * large and len(left & right) >= likeness * len(left | right)
