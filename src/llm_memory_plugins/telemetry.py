"""One logger and OpenTelemetry spans. No message text goes into either."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager

from opentelemetry import trace

logger = logging.getLogger("llm_memory_plugins")
logger.addHandler(logging.NullHandler())

_tracer = trace.get_tracer("llm_memory_plugins")


@contextmanager
def span(operation: str, **attributes: str | int | float | bool) -> Generator[trace.Span]:
    """A span `gen_ai.memory.<operation>`; does nothing unless the application has set up OpenTelemetry.

    Exceptions are recorded by class name alone, since their texts may be worth keeping private.
    """
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):  # nobody listens
        yield trace.INVALID_SPAN
        return
    named = {f"gen_ai.memory.{key}": value for key, value in attributes.items()}
    with _tracer.start_as_current_span(
        f"gen_ai.memory.{operation}", attributes=named, record_exception=False, set_status_on_exception=False
    ) as current:
        try:
            yield current
        except BaseException as error:
            current.set_attribute("error.type", type(error).__name__)
            current.set_status(trace.StatusCode.ERROR)
            raise
