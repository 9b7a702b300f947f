"""Checks of the tree that no linter makes: short files, a light and fast import, one version."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
LONGEST = 400
SLOWEST = 0.4  # seconds to import the package; the best of several tries, since machines are shared
HEAVY = ["google", "langchain", "langchain_core", "llama_index", "numpy", "openai", "psycopg", "redis", "supabase"]

PROBE = f"""
import sys, time
begun = time.perf_counter()
import llm_memory_plugins
taken = time.perf_counter() - begun
llm_memory_plugins.ConversationBufferMemory, llm_memory_plugins.ConversationSummaryMemory
print(taken, *[name for name in {HEAVY!r} if name in sys.modules])
"""


def main() -> int:
    """Print what is wrong; the exit code is the number of problems."""
    problems: list[str] = []
    for path in sorted([*ROOT.glob("src/**/*.py"), *ROOT.glob("tests/**/*.py"), *ROOT.glob("benchmarks/*.py")]):
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > LONGEST:
            problems.append(f"{path.relative_to(ROOT)} has {lines} lines; at most {LONGEST}")
    times: list[float] = []
    for _ in range(5):
        taken, *loaded = subprocess.run(  # noqa: S603 - our own interpreter and text
            [sys.executable, "-c", PROBE], check=True, capture_output=True, text=True
        ).stdout.split()
        times.append(float(taken))
        if loaded:
            problems.append(f"importing the engines loads {', '.join(loaded)}")
            break
    if min(times) > SLOWEST:
        problems.append(f"importing the package takes {min(times):.2f} s; at most {SLOWEST} s")
    for problem in problems:
        print(problem)
    print(f"tree: {len(problems)} problems; the package imports in {min(times):.3f} s")
    return len(problems)


if __name__ == "__main__":
    raise SystemExit(main())
