"""A chat model on OpenAI, or on any server that speaks its chat completions, such as vLLM, llama.cpp or Ollama."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, SecretStr

from llm_memory_plugins.errors import ModelError, needs
from llm_memory_plugins.ports import AnswerT
from llm_memory_plugins.providers._wire import PLACEHOLDER, WireModel, retry_after
from llm_memory_plugins.types import Usage

if TYPE_CHECKING:
    from openai import Omit
    from openai.types.shared import ReasoningEffort

DEFAULT_MODEL = "gpt-6-luna"
"""The small model of the newest family among the SDK's `ChatModel` literals (openai 3.54), no shutdown announced."""


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Completion(BaseModel):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None


class OpenAIChatModel(WireModel):
    """A `ChatModel` on the official SDK's async client.

    The SDK makes no retries: the callers in this package try again later, and nobody waits for them.

    Args:
        api_key: The key. It is in no attribute, log or error of this object. Anything for a server without keys.
        model: The model's name; `gpt-6-luna` when None.
        base_url: Another server that speaks OpenAI's protocol, up to and with `/v1`. When None, what the SDK
            takes: `OPENAI_BASE_URL`, else OpenAI.
        timeout: Seconds for a whole call, however slowly its answer drips in.
        reasoning_effort: How much a reasoning model thinks, which counts as output. When None, the server's default,
            and `none` for `gpt-6-luna`: by its default it would spend the output of a summary on thoughts.

    Raises:
        MissingExtra: When the SDK is not installed.
        ConfigError: When the key cannot be one.
    """

    def __init__(
        self,
        *,
        api_key: SecretStr,
        model: str | None = None,
        base_url: str | None = None,
        timeout: float = 30.0,
        reasoning_effort: ReasoningEffort = None,
    ) -> None:
        with needs("a model of openai", "openai"):
            from openai import AsyncOpenAI, omit
        model = model or DEFAULT_MODEL
        super().__init__(
            "openai",
            model,
            api_key=api_key,
            key_name="openai_api_key",
            header="Authorization",
            scheme="Bearer ",
            timeout=timeout,
        )
        self._base_url = base_url
        self._effort: ReasoningEffort | Omit = reasoning_effort or ("none" if model == DEFAULT_MODEL else omit)
        self._client = AsyncOpenAI(
            api_key=PLACEHOLDER, base_url=base_url, timeout=None, max_retries=0, http_client=self._http
        )

    async def ping(self) -> None:
        """Look the model up, or list the models where `base_url` is given: many servers know no more than the list.

        Raises:
            ModelError: When that fails.
        """
        models = self._client.models.with_raw_response
        await self._attempt(models.retrieve(self.model) if self._base_url is None else models.list())

    async def generate(
        self, *, instructions: str, content: str, answer: type[AnswerT], max_output_tokens: int
    ) -> tuple[AnswerT, Usage]:
        """Ask once and return the parsed answer and what it cost.

        Raises:
            ModelError: On any failure; `retryable` and `retry_after` say whether and when to try again.
        """
        # Chat completions rather than the newer responses: every compatible server has them, with the JSON schema in
        # `response_format`. `parse` makes the strict schema of the type. What comes back is taken raw and read here,
        # as the SDK builds its objects without validation: an error page sent with status 200, which proxies do,
        # leaves it as AttributeError or TypeError, and an odd field as a warning that quotes the answer.
        raw = await self._attempt(
            self._client.chat.completions.with_raw_response.parse(
                model=self.model,
                messages=[{"role": "system", "content": instructions}, {"role": "user", "content": content}],
                response_format=answer,
                max_completion_tokens=max_output_tokens,
                reasoning_effort=self._effort,
            )
        )
        completion = self._read(raw.content, _Completion)
        if not completion.choices:
            raise self._empty()
        message, finish_reason = completion.choices[0].message, completion.choices[0].finish_reason
        if finish_reason == "content_filter":
            raise self._refused(finish_reason)
        if message.refusal:
            raise self._refused("refusal")
        if finish_reason == "length":
            raise self._truncated(max_output_tokens)
        if not message.content:
            raise self._empty()
        used = completion.usage or _Usage()
        usage = Usage(input_tokens=used.prompt_tokens or 0, output_tokens=used.completion_tokens or 0, calls=1)
        return self._read(message.content, answer), usage

    def _sdk_errors(self) -> tuple[type[Exception], ...]:
        from openai import OpenAIError

        return (OpenAIError,)

    def _translate(self, error: Exception) -> ModelError:
        from openai import APIStatusError

        if isinstance(error, APIStatusError):
            return self._bad_status(error.status_code, code=error.code, retry_after=retry_after(error.response.headers))
        return self._unreachable()
