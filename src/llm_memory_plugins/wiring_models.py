"""From settings to models: the only file that knows every provider. SDKs are imported when a model is wired."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

from pydantic import SecretStr

from llm_memory_plugins.config import Config, SummaryConfig, VectorConfig
from llm_memory_plugins.errors import ConfigError
from llm_memory_plugins.ports import Backend, Embedder, Summariser, TokenCounter
from llm_memory_plugins.telemetry import logger

if TYPE_CHECKING:
    from llm_memory_plugins.providers.embedders.cached import CachedEmbedder
    from llm_memory_plugins.providers.gemini import GeminiChatModel
    from llm_memory_plugins.providers.openai import OpenAIChatModel

Provider = Literal["openai", "gemini"]
_PACKAGES: dict[Provider, str] = {"openai": "openai", "gemini": "google.genai"}


def summariser(config: SummaryConfig, tokens: TokenCounter) -> tuple[Summariser, dict[str, Backend]]:
    """The summariser a config asks for, and the model behind it, if any.

    Raises:
        ConfigError: When `summarization_model` names a provider there is no key for.
        MissingExtra: When it names one whose package is not installed.
    """
    model = _chat_model(config)
    if model is None:
        from llm_memory_plugins.providers.offline import OfflineSummariser

        return OfflineSummariser(count=tokens.count), {}
    from llm_memory_plugins.providers.summariser import ModelSummariser

    return ModelSummariser(model, count=tokens.count), {"model": model}


def embedder(config: VectorConfig, given: object = None) -> CachedEmbedder:
    """The embedder a config asks for, or one that was handed in, behind a cache.

    Args:
        config: For `embedding_model` and the keys.
        given: An `Embedder`, or an object with the methods of LangChain's `Embeddings` or LlamaIndex's `BaseEmbedding`.

    Raises:
        ConfigError: When `embedding_model` names a provider there is no key for, or nothing that is known.
        MissingExtra: When it names one whose package is not installed.
    """
    from llm_memory_plugins.providers.embedders.cached import CachedEmbedder

    if isinstance(given, CachedEmbedder):
        return given
    if given is None:
        return CachedEmbedder(_embedder(config))
    from llm_memory_plugins.providers.embedders.handed import adopt

    return CachedEmbedder(adopt(given))


def _embedder(config: VectorConfig) -> Embedder:
    name, dimensions = config.embedding_model, config.embedding_dimensions
    provider: Provider | None = None
    if name is None:
        provider = _provider_of_key(config, "texts are embedded", first="openai")
    elif _is_minilm(name):
        from llm_memory_plugins.providers.embedders.minilm import MiniLMEmbedder

        return MiniLMEmbedder()
    elif name != "offline":
        provider = _provider("embedding_model", name, config, ("text-embedding-",))
    common: dict[str, Any] = {"model": name, "dimensions": dimensions, "timeout": config.model_timeout}
    if provider == "openai" and config.openai_api_key is not None:
        from llm_memory_plugins.providers.embedders.openai import OpenAIEmbedder

        return OpenAIEmbedder(api_key=config.openai_api_key, base_url=config.openai_base_url, **common)
    if provider == "gemini" and config.google_api_key is not None:
        from llm_memory_plugins.providers.embedders.gemini import GeminiEmbedder

        return GeminiEmbedder(api_key=config.google_api_key, base_url=config.google_base_url, **common)
    if provider is not None:  # the same settings are to work with a key and without
        logger.warning("embedding_model=%r needs a key for %s; without one, texts are embedded offline", name, provider)
    elif dimensions is not None:
        raise ConfigError("embedding_dimensions: the offline embedder has 256, and no others; leave it out")
    from llm_memory_plugins.providers.embedders.offline import OfflineEmbedder

    return OfflineEmbedder()


def _is_minilm(name: str) -> bool:
    return name.rpartition("/")[2].lower() == "all-minilm-l6-v2"


def _chat_model(config: SummaryConfig) -> OpenAIChatModel | GeminiChatModel | None:
    name = config.summarization_model
    if name == "offline":
        return None
    if name is None:
        provider = _provider_of_key(config, "summaries are made", first="gemini")
    else:
        provider = _provider("summarization_model", name, config, ("gpt-", "chatgpt", "o1", "o3", "o4", "ft:"))
    if provider == "gemini":
        from llm_memory_plugins.providers.gemini import GeminiChatModel

        key = _key(config.google_api_key, "summarization_model", name, "google_api_key", "GOOGLE_API_KEY")
        return GeminiChatModel(api_key=key, model=name, base_url=config.google_base_url, timeout=config.model_timeout)
    if provider == "openai":
        from llm_memory_plugins.providers.openai import OpenAIChatModel

        key = _key(config.openai_api_key, "summarization_model", name, "openai_api_key", "OPENAI_API_KEY")
        return OpenAIChatModel(api_key=key, model=name, base_url=config.openai_base_url, timeout=config.model_timeout)
    return None


def _key(key: SecretStr | None, setting: str, name: str | None, wanted: str, variable: str) -> SecretStr:
    if key is None:
        raise ConfigError(f"{setting}={name!r} needs {wanted} (or {variable})")
    return key


def _provider_of_key(config: Config, what: str, *, first: Provider) -> Provider | None:
    """The provider there is a key for, when its package is there, too."""
    keys: dict[Provider, SecretStr | None] = {"openai": config.openai_api_key, "gemini": config.google_api_key}
    order: list[Provider] = [first, *(name for name in keys if name != first)]
    provider: Provider | None = next((name for name in order if keys[name]), None)
    if provider and not _installed(_PACKAGES[provider]):
        logger.warning(
            "there is a key for %s but its package is not installed, so %s offline; "
            "pip install 'llm-memory-plugins[%s]'",
            *(provider, what, provider),
        )
        return None
    return provider


def _provider(setting: str, name: str, config: Config, openai: tuple[str, ...]) -> Provider:
    """Whose model that is. A server that speaks OpenAI's protocol may call its models anything."""
    if name.removeprefix("models/").startswith(("gemini", "gemma")):
        return "gemini"
    if config.openai_base_url or name.startswith(openai):
        return "openai"
    raise ConfigError(
        f"{setting}={name!r} is neither 'offline' nor a model of Gemini's or OpenAI's; "
        "for another server that speaks OpenAI's protocol set openai_base_url too"
    )


def _installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # a parent package is missing
        return False
