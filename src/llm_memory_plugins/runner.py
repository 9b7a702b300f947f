"""Sync over async: one background event loop for all sync callers of the process.

The engines are async only. From plain code, from threads, and inside a running Jupyter kernel:

```python
from llm_memory_plugins.runner import run

context = run(memory.get_context, {"session_id": "s1"})
```
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, suppress
from functools import partial
from typing import ParamSpec, TypeVar

from anyio.from_thread import BlockingPortal, start_blocking_portal

P = ParamSpec("P")
T = TypeVar("T")

_lock = threading.Lock()
_running: tuple[BlockingPortal, AbstractContextManager[BlockingPortal]] | None = None
_of_the_parent: list[object] = []  # kept after a fork: letting go of a portal would wait for its thread


def run(function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call an async function on the shared background loop and wait for its result.

    All engines that are used through here share that loop, so one engine may be used from many threads.

    Raises:
        RuntimeError: When called on that loop itself, where waiting would never end; await the function there.
    """
    return _portal().call(partial(function, *args, **kwargs))


def _portal() -> BlockingPortal:
    global _running  # noqa: PLW0603 - the one loop of the process
    with _lock:
        if _running is None:
            manager = start_blocking_portal("asyncio")
            _running = (manager.__enter__(), manager)
        return _running[0]


def _stop() -> None:
    global _running
    with _lock:
        stopping, _running = _running, None
    if stopping is not None:
        with suppress(RuntimeError):  # the interpreter may already have ended the thread
            stopping[1].__exit__(None, None, None)


def _forget() -> None:
    """A forked child has the parent's portal but not its thread: it starts its own at the next call."""
    global _running, _lock
    _of_the_parent.append(_running)
    _running, _lock = None, threading.Lock()


atexit.register(_stop)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
