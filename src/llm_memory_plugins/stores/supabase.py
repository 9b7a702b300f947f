"""Calls the functions of `sql/` over Supabase's API: one HTTP request a call.

With a secret key it sees every user's rows, with a user's token that user's. Content travels in request bodies only,
since HTTP libraries log URLs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any

import httpx
from postgrest.exceptions import APIError
from pydantic import SecretStr
from supabase import AsyncClient, AsyncClientOptions, acreate_client

from llm_memory_plugins.errors import AccessDenied, ConfigError, StoreUnavailable
from llm_memory_plugins.stores.sql_transport import may_repeat, opened, translated, with_retries

_BUSY = {"429", "502", "503", "504", "PGRST000", "PGRST001", "PGRST002", "PGRST003", "SUP"}


class SupabaseTransport:
    """A client of one project.

    Args:
        url: The project's, `https://<ref>.supabase.co`.
        key: A secret key (`sb_secret_...`) on a server; with a user's token a publishable key is enough.
        token: The access token of the one user to act as.
        timeout: Seconds a request may take.
        hot: Whether this process keeps copies in a shared hot tier.

    Raises:
        ConfigError: When the URL cannot be one of a project.
    """

    def __init__(
        self, url: str, key: SecretStr, *, token: SecretStr | None = None, timeout: float = 5.0, hot: bool = False
    ) -> None:
        try:
            parts = httpx.URL(url)
        except httpx.InvalidURL:
            parts = httpx.URL()
        if parts.scheme not in {"http", "https"} or not parts.host or parts.userinfo:
            raise ConfigError("supabase_url: write it as the project's settings show it, https://<ref>.supabase.co")
        if not key.get_secret_value():
            raise ConfigError("supabase_key: is empty")
        self.identity, self.copies_elsewhere = "", False
        self._hot = hot
        self._url = url
        self._key = key
        self._token = token
        self._timeout = timeout
        self._http: httpx.AsyncClient | None = None
        self._client: AsyncClient | None = None
        self._opening = asyncio.Lock()

    async def open(self) -> None:
        """Make the client, and see whether the project can be reached and has the schema.

        Raises:
            StoreUnavailable: When not.
            AccessDenied: When the key or token is not accepted, or has no rights.
        """
        async with self._opening:
            if self._client is not None:
                return
            self._http = httpx.AsyncClient(timeout=self._timeout, follow_redirects=True)
            bearer = (self._token or self._key).get_secret_value()
            options = AsyncClientOptions(
                httpx_client=self._http,
                headers={"Authorization": f"Bearer {bearer}"},
                auto_refresh_token=False,
                persist_session=False,
                postgrest_client_retry=False,  # what may be repeated is decided here
            )
            try:
                self._client = await acreate_client(self._url, self._key.get_secret_value(), options=options)
                answer = await self.call("open_memory", {"hot": self._hot}, user_id=None)
                self.identity, self.copies_elsewhere = opened(answer, hot=self._hot)
            except BaseException:
                await self._close()
                raise

    async def ping(self) -> None:
        """Call the smallest function there is."""
        await self.call("open_memory", {}, user_id=None)

    async def close(self) -> None:
        """Let go of the connections."""
        async with self._opening:
            await self._close()

    async def _close(self) -> None:
        http, self._http, self._client = self._http, None, None
        if http is not None:
            await http.aclose()

    async def call(
        self, function: str, arguments: Mapping[str, Any], *, user_id: str | None, repeatable: bool = True
    ) -> Any:
        """See `Transport.call`. Whose rows it may see is decided by the key or token, whatever `user_id` is."""
        try:
            return await with_retries(
                partial(self._attempt, function, arguments),
                errors=(APIError, httpx.HTTPError),
                repeat=lambda error: _is_transient(error, repeatable=repeatable),
                seconds=2 * self._timeout,
            )
        except httpx.HTTPError as error:  # its text may hold the URL, but no content: that is in the body
            raise StoreUnavailable(f"Supabase cannot be reached at supabase_url: {type(error).__name__}") from None
        except APIError as error:
            if error.code is None and "api key" in (error.message or "").lower():
                raise AccessDenied("supabase_key is not accepted by the project at supabase_url") from None
            raise translated(error.code or "unknown", error.message, error.hint) from None

    async def _attempt(self, function: str, arguments: Mapping[str, Any]) -> Any:
        if self._client is None:
            raise StoreUnavailable("the Supabase client is closed; call initialize() first")
        parameters = {f"p_{name}": value for name, value in arguments.items()}
        return (await self._client.rpc(function, parameters).execute()).data


def _is_transient(error: Exception, *, repeatable: bool) -> bool:
    if isinstance(error, APIError):
        return may_repeat(None if error.code in _BUSY else error.code or "unknown", repeatable=repeatable)
    if isinstance(error, httpx.ConnectError | httpx.PoolTimeout | httpx.ConnectTimeout):
        return True  # it was never sent
    return isinstance(error, httpx.TransportError) and repeatable
