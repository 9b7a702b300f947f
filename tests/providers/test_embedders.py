"""`EmbedderSuite` over every embedder there is."""

import sys
import zlib
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from pydantic import SecretStr

from llm_memory_plugins.providers.embedders.cached import CachedEmbedder
from llm_memory_plugins.providers.embedders.gemini import GeminiEmbedder
from llm_memory_plugins.providers.embedders.handed import adopt
from llm_memory_plugins.providers.embedders.minilm import MiniLMEmbedder
from llm_memory_plugins.providers.embedders.offline import OfflineEmbedder
from llm_memory_plugins.providers.embedders.openai import OpenAIEmbedder
from llm_memory_plugins.testing.embedder import EmbedderSuite
from llm_memory_plugins.testing.model_server import ModelServer, counted

KEY = SecretStr("any")


@pytest.fixture(scope="module")
def server():
    with ModelServer() as running:
        yield running


class TestOfflineEmbedder(EmbedderSuite):
    @pytest.fixture
    async def embedder(self):
        return OfflineEmbedder()


class TestCachedEmbedder(EmbedderSuite):
    @pytest.fixture
    async def embedder(self):
        cached = CachedEmbedder(OfflineEmbedder(), entries=50)
        await cached.open()
        yield cached
        await cached.close()


class TestOpenAIEmbedder(EmbedderSuite):
    @pytest.fixture
    async def embedder(self, server):
        made = OpenAIEmbedder(api_key=KEY, base_url=server.openai_url)
        yield made
        await made.close()


class TestOtherServersModel(EmbedderSuite):
    """Whose dimensions are learned, and whose window nobody knows."""

    @pytest.fixture
    async def embedder(self, server):
        made = OpenAIEmbedder(api_key=KEY, base_url=server.openai_url, model="nomic-embed-text")
        await made.open()
        yield made
        await made.close()


class TestGeminiEmbedder(EmbedderSuite):
    @pytest.fixture
    async def embedder(self, server):
        made = GeminiEmbedder(api_key=KEY, base_url=server.url, dimensions=128)
        yield made
        await made.close()


class TestNewerGeminiEmbedder(EmbedderSuite):
    most = 250

    @pytest.fixture
    async def embedder(self, server):
        made = GeminiEmbedder(api_key=KEY, base_url=server.url, dimensions=256, model="models/gemini-embedding-2")
        yield made
        await made.close()


class LangChainLike:
    """The verbs of LangChain's `Embeddings`."""

    model = "counts-words"

    def embed_documents(self, texts):
        return [counted(text, 512) for text in texts]

    def embed_query(self, text):
        return counted(text, 512)


class LlamaIndexLike:
    """The verbs of LlamaIndex's `BaseEmbedding`."""

    model_name = "counts-words"

    def get_text_embedding_batch(self, texts, show_progress=False):
        return [counted(text, 512) for text in texts]

    def get_query_embedding(self, query):
        return counted(query, 512)


class TestHandedLangChain(EmbedderSuite):
    @pytest.fixture
    async def embedder(self):
        made = adopt(LangChainLike())
        await made.open()
        return made


class TestHandedLlamaIndex(EmbedderSuite):
    @pytest.fixture
    async def embedder(self):
        return adopt(LlamaIndexLike(), dimensions=512)


class FakeTransformer:
    """Stands where `SentenceTransformer` would, whose weights are not on this machine."""

    def __init__(self, source, *, local_files_only):
        assert local_files_only is True
        if source != "sentence-transformers/all-MiniLM-L6-v2":
            raise OSError("no such files")

    def encode(self, sentences, *, batch_size, show_progress_bar):
        return np.array([np.random.default_rng(zlib.crc32(s.encode())).normal(size=384) for s in sentences])


@pytest.fixture
def transformers(monkeypatch):
    package = ModuleType("sentence_transformers")
    package.SentenceTransformer = FakeTransformer
    package.__spec__ = SimpleNamespace(name="sentence_transformers")
    monkeypatch.setitem(sys.modules, "sentence_transformers", package)


@pytest.mark.usefixtures("transformers")
class TestMiniLMEmbedder(EmbedderSuite):
    meaning = False
    most = 300

    @pytest.fixture
    async def embedder(self):
        return MiniLMEmbedder()
