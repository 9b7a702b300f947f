"""Dividing tokens: shares between sources, and which items of one source are worth their tokens. Pure."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass


def shares(total: int, weights: Sequence[float], needs: Sequence[int]) -> list[int]:
    """Tokens for each source: its weight's share, and what others leave over, but never more than it needs.

    Max-min fair filling by weight (Bertsekas & Gallager, Data Networks, 1992, section 6.5.2): sources that need less
    than their share are served in full, and the rest is divided again among the others.

    Args:
        total: Tokens to divide.
        weights: One a source, not negative; sources of weight 0 get what all others leave.
        needs: Tokens each source could use.

    Returns:
        One number a source; their sum is at most `total`.
    """
    given: list[int] = [0] * len(needs)
    for weighted in (True, False):
        left = total - sum(given)
        scale = weights if weighted else [1.0] * len(needs)
        hungry: list[int] = [i for i in range(len(needs)) if (weights[i] > 0) == weighted and needs[i] > 0]
        while hungry:
            whole = sum(scale[i] for i in hungry)
            sated: list[int] = [i for i in hungry if needs[i] <= left * scale[i] / whole]
            for i in sated or hungry:
                given[i] = needs[i] if sated else int(left * scale[i] / whole)
            if not sated:  # whole tokens: what rounding leaves goes to the first ones
                for i in hungry[: left - sum(given[i] for i in hungry)]:
                    given[i] += 1
            left -= sum(needs[i] for i in sated)
            if not sated:
                break
            hungry = [i for i in hungry if i not in sated]
    return given


_SHORTEST = 16  # tokens below which being shorter is no merit: what is that short hardly says anything


@dataclass(frozen=True, slots=True)
class Item:
    """Something that may go into a context.

    Attributes:
        tokens: What it costs.
        value: What it is worth, not negative.
        heading: What it has to stand under; the first item under a heading pays for it.
        heading_tokens: What the heading costs.
    """

    tokens: int
    value: float
    heading: Hashable = None
    heading_tokens: int = 0


def fill(items: Sequence[Item], budget: int, *, length_exponent: float = 0.5) -> list[int]:
    """Positions of the items worth having within `budget` tokens, in their order.

    Greedy by value / tokens ** `length_exponent`: 0 would fill the budget with whatever is best, 1 with whatever is
    short, though no item counts as shorter than 16 tokens. All are taken when all fit.
    """
    order = sorted(
        range(len(items)), key=lambda i: (-items[i].value / max(_SHORTEST, items[i].tokens) ** length_exponent, -i)
    )
    chosen: list[int] = []
    headings: set[Hashable] = set()
    for i in order:
        item = items[i]
        price = item.tokens + (0 if item.heading in headings else item.heading_tokens)
        if price <= budget:
            budget -= price
            headings.add(item.heading)
            chosen.append(i)
    return sorted(chosen)
