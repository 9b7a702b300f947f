"""What the measuring scripts plug in: `--plugin benchmarks.plugins:summariser`."""

from __future__ import annotations

from collections.abc import Sequence

from llm_memory_plugins.compression import compress


class _Summariser:
    def summarise(self, turns: Sequence[str], max_chars: int) -> str:
        return compress(turns, max_chars)


def summariser() -> _Summariser:
    """The offline summariser, measured in characters."""
    return _Summariser()
