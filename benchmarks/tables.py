"""How the benchmarks print."""

from __future__ import annotations

import sys
from collections.abc import Iterable


def progress(line: str) -> None:
    """A line for who waits."""
    print(line, file=sys.stderr, flush=True)


def table(title: str, columns: Iterable[str], rows: Iterable[tuple[str, Iterable[str]]]) -> None:
    """Print one, the columns as wide as they need."""
    lines = [[title, *columns], *([name, *cells] for name, cells in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    print()
    for line in lines:
        print("  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]))
