"""The command line, `llm-memory`: try it, look into a memory, move it, erase it.

typer and rich come with the extra `cli`. The commands are plain functions that `build` makes an application of, so
that this file can be imported, and say what is missing, without them.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import traceback
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast

from llm_memory_plugins import codec
from llm_memory_plugins.context import Context
from llm_memory_plugins.engines.buffer import ConversationBufferMemory
from llm_memory_plugins.engines.summary import ConversationSummaryMemory
from llm_memory_plugins.errors import ConfigError, InvalidInput, LLMMemoryError, needs
from llm_memory_plugins.telemetry import logger
from llm_memory_plugins.types import ContextRequest, Message, Receipt, SessionStats

if TYPE_CHECKING:
    import typer
    from pydantic import SecretStr

    from llm_memory_plugins.engines.vector import VectorDatabaseMemory
else:
    try:
        import typer
    except ImportError:  # said by `main`
        typer = None

MemoryT = TypeVar("MemoryT", ConversationBufferMemory, ConversationSummaryMemory, "VectorDatabaseMemory")
T = TypeVar("T")

_HINT = "llm-memory needs typer and rich; pip install 'llm-memory-plugins[cli]'"


@dataclass
class Settings:
    """The options before the command. `database` is as it was typed; None leaves it to the configuration."""

    database: str | None = None
    debug: bool = False

    def config(self) -> dict[str, Any]:
        """The engines' settings; what is not here comes from the environment."""
        if self.database is None:
            return {}
        if "://" in self.database:
            return {"database_url": self.database}
        where = self.database if self.database == ":memory:" else Path(self.database).expanduser().absolute()
        return {"database_url": f"sqlite:///{where}"}


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point: runs a command and exits, an error as one line on stderr.

    Args:
        arguments: Instead of the process's own.

    Raises:
        SystemExit: Always. 0: done, 1: failed, 2: not understood, 130: interrupted.
    """
    try:
        import typer  # noqa: F401 # pyright: ignore[reportUnusedImport]

        from llm_memory_plugins.display import shortened
    except ImportError:  # `MissingExtra` is one too
        sys.exit(_HINT)
    settings = Settings()
    try:
        build()(args=None if arguments is None else list(arguments), prog_name="llm-memory", obj=settings)
    except KeyboardInterrupt:
        sys.exit(130)
    except (LLMMemoryError, OSError, UnicodeError) as error:
        if settings.debug:
            traceback.print_exc()
        sys.exit(f"error: {shortened(str(error), 1000)}")


def build() -> typer.Typer:
    """The typer application. It wants a `Settings` as its `obj`."""
    app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False, rich_markup_mode=None)
    app.callback()(_options)
    for command in (_demo, _migrate, _index, _reindex, _import, _export, _show, _context, _stats, _forget):
        app.command(command.__name__.removeprefix("_"))(command)
    return app


def _options(
    context: typer.Context,
    database: Annotated[
        str | None,
        typer.Option(
            metavar="URL_OR_PATH", help="Otherwise LLM_MEMORY_DATABASE_URL, or a file in your data directory."
        ),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Log, and show tracebacks.")] = False,
) -> None:
    """Memory for LLM applications: try it, look into it, move it, erase it."""
    settings = _settings(context)
    settings.database, settings.debug = database, debug
    if debug:
        logging.basicConfig()
        logger.setLevel(logging.DEBUG)


def _demo(
    transcript: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="A JSONL file of messages of your own.")
    ] = None,
    question: Annotated[list[str] | None, typer.Option(help="May be repeated.")] = None,
    budget: Annotated[list[int] | None, typer.Option(min=1, help="Tokens. May be repeated.")] = None,
) -> None:
    """Show what a memory holds of a long conversation, at several budgets. Needs no key, server or network."""
    from rich.console import Console

    from llm_memory_plugins import demo

    asyncio.run(demo.run(Console(), transcript=transcript, questions=question or (), budgets=budget or ()))


def _migrate(context: typer.Context) -> None:
    """Bring a PostgreSQL or Supabase database up to this version's schema. Does nothing when it is."""
    url = _postgres(context, "a SQLite file is brought up to date by itself")
    with needs("migrating", "postgres"):
        from llm_memory_plugins.stores.migrate import migrate

    async def work() -> None:
        async for migration, left in migrate(url):
            print(f"applied {migration.version:04}_{migration.name}, {left} left", flush=True)
        print("the schema is up to date")

    asyncio.run(work())


def _index(
    context: typer.Context,
    dimensions: Annotated[
        int, typer.Argument(min=1, max=4000, help="Of the vectors: the embedder's identity ends so.")
    ],
    drop: Annotated[bool, typer.Option("--drop", help="Drop it instead.")] = False,
) -> None:
    """Make an index for approximate search in PostgreSQL, which serves users with more than 20,000 passages."""
    url = _postgres(context, "a SQLite file needs no index")
    with needs("an index", "postgres"):
        from llm_memory_plugins.stores.migrate import index_embeddings

    asyncio.run(index_embeddings(url, dimensions, drop=drop))
    print("the index is dropped" if drop else "the index is there")


def _reindex(
    context: typer.Context,
    user: Annotated[str | None, typer.Option(help="Default: every user.")] = None,
) -> None:
    """Embed all texts anew by the configured embedder, and remove the vectors of others. Searches may go on."""
    from llm_memory_plugins.engines.vector import VectorDatabaseMemory

    memory = VectorDatabaseMemory(_settings(context).config())
    made = _run(memory, lambda memory: memory.reindex(user_id=user, progress=True))
    print(f"vectors made: {made}, by {memory.embedder.identity}")


def _import(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="JSONL, one message a line.")],
    session: Annotated[str | None, typer.Option(help="For lines that name none.")] = None,
    user: Annotated[str | None, typer.Option(help="For lines that name none.")] = None,
) -> None:
    """Store the messages of a file; those that are there already are not stored again."""
    count = _run(_buffer(context), lambda memory: memory.import_(file, session_id=session, user_id=user))
    print(f"messages imported: {count}")


def _export(
    context: typer.Context,
    file: Annotated[str, typer.Argument(help="JSONL, one message a line; - for standard output.")],
    session: Annotated[str | None, typer.Option(help="Default: every session.")] = None,
    user: Annotated[str | None, typer.Option(help="Default: every user.")] = None,
) -> None:
    """Write messages to a file, in the form that `import` reads."""

    async def work(memory: ConversationBufferMemory) -> None:
        if session is not None:
            await _existing(memory, session, user)
        if file != "-":
            count = await memory.export(file, session_id=session, user_id=user)
            print(f"messages exported: {count}")
            return
        async for line in memory.export_lines(session, user):
            print(_escaped(line))

    _run(_buffer(context), work)


def _show(
    context: typer.Context,
    session: Annotated[str, typer.Argument()],
    user: Annotated[str | None, typer.Option(help="Needed when several users have a session of this name.")] = None,
    last: Annotated[int, typer.Option(min=1, help="How many messages.")] = 20,
) -> None:
    """Print the newest messages of a session."""
    from rich.console import Console

    from llm_memory_plugins.display import said

    async def work(memory: ConversationBufferMemory) -> deque[Message]:
        stats = await _existing(memory, session, user)
        return deque([m async for m in memory.messages(stats.session_id, stats.user_id)], maxlen=last)

    for message in _run(_buffer(context), work):
        Console().print(said(message), soft_wrap=True)


def _context(
    context: typer.Context,
    session: Annotated[str, typer.Argument()],
    question: Annotated[str, typer.Argument(help="What the next model call is about.")] = "",
    budget: Annotated[int | None, typer.Option(min=1, help="Tokens; otherwise the configured ones.")] = None,
    user: Annotated[str | None, typer.Option(help="Needed when several users have a session of this name.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Everything, the text included, as JSON.")] = False,
    summarise: Annotated[bool, typer.Option(help="First summarise what has left the buffer, where not done.")] = True,
) -> None:
    """Compose the context for a question and show what is in it and why."""

    async def work(memory: ConversationSummaryMemory) -> Context:
        stats = await _existing(memory, session, user)
        if summarise:
            await memory.compact(stats.session_id, stats.user_id)
        asked = ContextRequest(session_id=stats.session_id, user_id=stats.user_id, query=question)
        return await memory.get_context(replace(asked, max_total_tokens=budget))

    composed = _run(ConversationSummaryMemory(_settings(context).config()), work)
    if as_json:
        print(_escaped(json.dumps(composed, default=_plain, ensure_ascii=False, indent=2)))
        return
    from rich.console import Console

    from llm_memory_plugins.display import view

    Console().print(view(composed))


def _stats(
    context: typer.Context,
    session: Annotated[str | None, typer.Argument(help="Default: every session.")] = None,
    user: Annotated[str | None, typer.Option(help="Default: every user.")] = None,
) -> None:
    """List sessions: messages, turns, tokens, first and last time."""
    from rich.console import Console

    from llm_memory_plugins.display import sessions

    async def work(memory: ConversationBufferMemory) -> list[SessionStats]:
        if session is not None:
            return [await _existing(memory, session, user)]
        listed: list[SessionStats] = []
        while page := await memory.list_sessions(user, after=listed[-1] if listed else None):
            listed.extend(page)
        return listed

    Console().print(sessions(_run(_buffer(context), work)))


def _forget(
    context: typer.Context,
    user: Annotated[str | None, typer.Option(help="Alone: everything of this user.")] = None,
    session: Annotated[str | None, typer.Option(help="Only this session.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Erase a session, or everything of a user: messages, summaries, copies."""
    if user is None and session is None:
        raise typer.BadParameter("name what to erase: --session, --user, or both")
    if not yes:
        typer.confirm(f"Erase {_erased(user, session)} for ever?", abort=True)

    async def work(memory: ConversationBufferMemory) -> Receipt:
        if session is not None:
            return await memory.clear(session, user)
        assert user is not None  # noqa: S101 - one of the two is given
        return await memory.forget(user_id=user)

    receipt = _run(_buffer(context), work)
    rows = ", ".join(f"{count} {what}" for what, count in receipt.removed.items() if count)
    print(f"removed: {rows or 'nothing'}")


def _settings(context: typer.Context) -> Settings:
    return context.ensure_object(Settings)


def _postgres(context: typer.Context, otherwise: str) -> SecretStr:
    """The URL of the PostgreSQL database that is configured."""
    from llm_memory_plugins.config import Config, load, names_postgres

    url = load(Config, _settings(context).config()).database_url
    if url is None or not names_postgres(url):
        raise ConfigError(f"--database: name one, postgresql://...; {otherwise}")
    return url


def _buffer(context: typer.Context) -> ConversationBufferMemory:
    return ConversationBufferMemory(_settings(context).config())


def _run(memory: MemoryT, work: Callable[[MemoryT], Awaitable[T]]) -> T:
    """Open a memory, do the work, close it. `asyncio.run` rather than `runner`: Ctrl-C then cancels the work."""

    async def inside() -> T:
        await memory.initialize()
        try:
            return await work(memory)
        finally:
            await memory.close()

    return asyncio.run(inside())


async def _existing(
    memory: ConversationBufferMemory | ConversationSummaryMemory, session: str, user: str | None
) -> SessionStats:
    stats = await memory.get_session_stats(session, user)
    if not stats.message_count:
        raise InvalidInput("session", "there is none of this name; `llm-memory stats` lists them")
    return stats


def _erased(user: str | None, session: str | None) -> str:
    if session is None:
        return f"everything of user {user!r}"
    return f"session {session!r}" + ("" if user is None else f" of user {user!r}")


def _plain(value: object) -> object:
    """For `json.dumps`: our values as objects, times as ISO 8601, and what else a payload holds as tagged JSON."""
    if isinstance(value, Mapping):
        return dict(cast("Mapping[str, object]", value))
    if isinstance(value, Sequence):
        return list(cast("Sequence[object]", value))
    if isinstance(value, datetime):
        return value.isoformat()
    return json.loads(codec.dumps(value))


def _escaped(text: str) -> str:
    """JSON that means the same and holds no character that a terminal would obey."""
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)
