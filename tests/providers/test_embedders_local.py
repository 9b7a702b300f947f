"""What is the offline embedder's own, MiniLM's, the handed ones' and the cache's."""

import asyncio
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_memory_plugins.errors import ConfigError, InvalidInput, MissingExtra, ModelError
from llm_memory_plugins.providers.embedders import offline
from llm_memory_plugins.providers.embedders.cached import CachedEmbedder
from llm_memory_plugins.providers.embedders.handed import adopt
from llm_memory_plugins.providers.embedders.minilm import MiniLMEmbedder
from llm_memory_plugins.providers.embedders.offline import OfflineEmbedder
from llm_memory_plugins.types import Usage

OWN = """
import sys, numpy as np, wordllama
from pathlib import Path
model = wordllama.WordLlama.load(cache_dir=Path(wordllama.__file__).parent, disable_download=True)
np.save(sys.argv[1], model.embed(sys.argv[2:], norm=True))
"""


def run(code, *arguments):
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
async def test_the_vectors_are_wordllamas_own(tmp_path):
    texts = ["Ada moved to Lisbon.", "🙂 ok", "a much longer text " * 2000, "x"]
    run(OWN, str(tmp_path / "own.npy"), *texts)
    embedder = OfflineEmbedder()
    vectors, usage = await embedder.embed(texts, kind="query")
    assert embedder.identity == "wordllama/l2_supercat/256"
    assert usage == Usage()
    np.testing.assert_allclose(vectors, np.load(tmp_path / "own.npy"), atol=1e-5)


@pytest.mark.slow
def test_it_brings_no_network_library_and_leaves_logging_alone():
    print(
        run(
            "import asyncio, logging, sys\n"
            "from llm_memory_plugins.providers.embedders.offline import OfflineEmbedder\n"
            "assert not {'numpy', 'tokenizers', 'safetensors'} & set(sys.modules)\n"
            "asyncio.run(OfflineEmbedder().embed(['hello'], kind='query'))\n"
            "assert not {'wordllama', 'requests', 'huggingface_hub', 'httpx'} & set(sys.modules)\n"
            "assert logging.getLogger().handlers == [] and logging.getLogger().level == logging.WARNING\n"
        )
    )


@given(st.text(min_size=1).filter(lambda text: text.strip()))
@settings(max_examples=200, deadline=None)
def test_any_text_with_something_in_it_has_a_vector(text):
    try:
        vectors, _ = asyncio.run(OfflineEmbedder().embed([text], kind="document"))
    except InvalidInput:
        assert any("\ud800" <= character <= "\udfff" for character in text)
    else:
        assert np.linalg.norm(vectors) == pytest.approx(1.0, abs=1e-5)


def test_threads_that_come_together_load_it_once(monkeypatch):
    import safetensors.numpy

    loads = []
    load = safetensors.numpy.load_file
    monkeypatch.setattr(safetensors.numpy, "load_file", lambda path: loads.append(path) or load(path))
    offline._read.cache_clear()
    together = threading.Barrier(4)

    def embed(text):
        together.wait()
        return asyncio.run(OfflineEmbedder().embed([text], kind="query"))

    with ThreadPoolExecutor(4) as pool:
        assert len(list(pool.map(embed, "abcd"))) == 4
    assert len(loads) == 1


def test_a_wordllama_that_is_missing_or_empty_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(offline, "find_spec", lambda name: SimpleNamespace(origin=str(tmp_path / "__init__.py")))
    with pytest.raises(ConfigError, match="weights"):
        OfflineEmbedder()
    monkeypatch.setattr(offline, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install llm-memory-plugins"):
        OfflineEmbedder()


async def test_minilm_is_loaded_from_this_machine_or_not_at_all(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingExtra, match="pip install sentence-transformers"):
        MiniLMEmbedder()
    package = ModuleType("sentence_transformers")
    package.__spec__ = SimpleNamespace(name="sentence_transformers")
    asked = []

    def load(source, *, local_files_only):
        asked.append((source, local_files_only))
        raise OSError("not in the cache")

    package.SentenceTransformer = load
    monkeypatch.setitem(sys.modules, "sentence_transformers", package)
    embedder = MiniLMEmbedder(folder=str(tmp_path))
    assert (embedder.identity, embedder.max_tokens) == ("sentence-transformers/all-MiniLM-L6-v2/384", 256)
    for call in (embedder.open(), embedder.embed(["x"], kind="query")):
        with pytest.raises(ConfigError, match="hf download"):
            await call
    assert asked == [(str(tmp_path), True)] * 2
    package.SentenceTransformer = lambda *_, **__: SimpleNamespace(encode=out_of_memory)
    with pytest.raises(ModelError) as caught:
        await embedder.embed(["x"], kind="query")
    assert caught.value.retryable


def out_of_memory(*_, **__):
    raise RuntimeError("out of memory")


class Documents:
    """LangChain's verbs, which answer what they are told and note what they are asked."""

    def __init__(self, answer=None, error=None):
        self.answer, self.error, self.asked = answer, error, []

    def embed_documents(self, texts):
        self.asked.append(texts)
        if self.error:
            raise self.error
        return self.answer or [[1.0, 2.0]] * len(texts)

    def embed_query(self, text):
        return self.embed_documents([text])[0]


class AsyncDocuments(Documents):
    async def aembed_documents(self, texts):
        return [[3.0, 4.0] for _ in texts]

    async def aembed_query(self, text):
        return [4.0, 3.0]


async def test_langchains_async_verbs_come_first():
    embedder = adopt(AsyncDocuments())
    documents, usage = await embedder.embed(["a", "b"], kind="document")
    queries, _ = await embedder.embed(["a"], kind="query")
    np.testing.assert_allclose(documents, [[0.6, 0.8]] * 2)
    np.testing.assert_allclose(queries, [[0.8, 0.6]])
    assert usage.calls == 1
    assert embedder.identity == "langchain/AsyncDocuments/2"


async def test_the_real_base_class_of_llamaindex_is_known():
    code = (
        "import asyncio\n"
        "from llama_index.core.embeddings import MockEmbedding\n"
        "from llm_memory_plugins.providers.embedders.handed import adopt\n"
        "embedder = adopt(MockEmbedding(embed_dim=4))\n"
        "asyncio.run(embedder.embed(['a', 'b'], kind='document'))\n"
        "asyncio.run(embedder.embed(['a'], kind='query'))\n"
        "print(embedder.identity)\n"
    )
    assert run(code).strip() == "llamaindex/MockEmbedding/unknown/4"


def test_names_and_what_is_none_of_these():
    inner = OfflineEmbedder()
    assert adopt(inner) is inner
    given = Documents()
    given.model = "small"
    assert adopt(given, dimensions=3).identity == "langchain/Documents/small/3"
    assert adopt(given, name="mine/v2", dimensions=3).identity == "mine/v2/3"
    for wrong in (object(), "text-embedding-3-small", None, lambda texts: texts):
        with pytest.raises(ConfigError, match="embed_documents"):
            adopt(wrong)


class RateLimited(Exception):
    status_code = 429
    response = SimpleNamespace(headers={"retry-after": "3"})


class Refused(Exception):
    status_code = 401


@pytest.mark.parametrize(
    ("error", "retryable", "wait"),
    [
        (RateLimited("secret"), True, 3.0),
        (Refused("secret"), False, None),
        (ConnectionError("secret"), True, None),
        (TimeoutError("secret"), True, None),
        (TypeError("secret"), False, None),
    ],
)
async def test_errors_of_a_handed_object_become_model_errors(error, retryable, wait):
    with pytest.raises(ModelError) as caught:
        await adopt(Documents(error=error)).embed(["a"], kind="query")
    assert (caught.value.retryable, caught.value.retry_after) == (retryable, wait)
    assert "secret" not in str(caught.value)
    assert type(error).__name__ in str(caught.value)


@pytest.mark.parametrize("answer", [[[1.0, 2.0]], [[1.0], [1.0, 2.0]], [["a"], ["b"]], [[None], [None]], [5, 6], 7])
async def test_nonsense_of_a_handed_object_becomes_a_model_error(answer):
    with pytest.raises(ModelError):
        await adopt(Documents(answer)).embed(["a", "b"], kind="document")


class Slow:
    """An embedder that answers when it is let, and notes what it was paid for."""

    identity, dimensions, max_tokens = "slow/one/2", 2, None

    def __init__(self):
        self.paid, self.go, self.error = [], asyncio.Event(), None

    async def embed(self, texts, *, kind):
        self.paid.append((kind, list(texts)))
        await self.go.wait()
        if self.error:
            raise self.error
        angles = np.array([float(len(text)) for text in texts])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32), Usage(len(texts), 0, 1)


@pytest.fixture
async def slow():
    return Slow()


async def test_a_text_is_paid_for_once(slow):
    slow.go.set()
    cached = CachedEmbedder(slow)
    first, usage = await cached.embed(["a", "bb", "a"], kind="document")
    second, nothing = await cached.embed(["bb", "a"], kind="document")
    assert slow.paid == [("document", ["a", "bb"])]
    assert (usage, nothing, cached.usage) == (Usage(2, 0, 1), Usage(), Usage(2, 0, 1))
    assert (cached.hits, cached.misses) == (3, 2)
    np.testing.assert_array_equal(first[[1, 0]], second)
    await cached.embed(["a"], kind="query")
    assert slow.paid[1:] == [("query", ["a"])], "a query is another thing than a document"


async def test_calls_at_once_pay_once(slow):
    cached = CachedEmbedder(slow)
    calls = [asyncio.create_task(cached.embed(["a", f"{'b' * (i % 3 + 2)}"], kind="query")) for i in range(50)]
    await asyncio.sleep(0.01)
    slow.go.set()
    answers = await asyncio.gather(*calls)
    assert sorted(text for _, texts in slow.paid for text in texts) == ["a", "bb", "bbb", "bbbb"]
    assert sum((usage for _, usage in answers), Usage()) == cached.usage == Usage(4, 0, 3)
    for i, (rows, _) in enumerate(answers):
        np.testing.assert_allclose(rows[1, 0], np.cos(i % 3 + 2), atol=1e-6)


async def test_a_failure_reaches_all_who_wait_and_is_not_remembered(slow):
    cached = CachedEmbedder(slow)
    slow.error = ModelError("down", retryable=True)
    calls = [asyncio.create_task(cached.embed(["a"], kind="query")) for _ in range(5)]
    await asyncio.sleep(0.01)
    slow.go.set()
    assert await asyncio.gather(*calls, return_exceptions=True) == [slow.error] * 5
    assert len(slow.paid) == 1
    slow.error = None
    await cached.embed(["a"], kind="query")
    assert len(slow.paid) == 2
    assert cached.usage == Usage(1, 0, 1)


async def test_who_is_cancelled_takes_nothing_from_the_others(slow):
    cached = CachedEmbedder(slow)
    payer = asyncio.create_task(cached.embed(["a"], kind="query"))
    await asyncio.sleep(0.01)
    waiter = asyncio.create_task(cached.embed(["a"], kind="query"))
    await asyncio.sleep(0.01)
    payer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await payer
    slow.go.set()
    assert (await waiter)[0].shape == (1, 2)
    assert len(slow.paid) == 1
    assert cached.usage == Usage(1, 0, 1)


async def test_closing_ends_what_is_under_way(slow):
    cached = CachedEmbedder(slow)
    call = asyncio.create_task(cached.embed(["a"], kind="query"))
    await asyncio.sleep(0.01)
    await cached.close()
    with pytest.raises(ModelError, match="closed"):
        await call
    slow.go.set()
    await cached.embed(["a"], kind="query")
    await cached.close()


async def test_it_remembers_only_so_many(slow):
    slow.go.set()
    cached = CachedEmbedder(slow, entries=2)
    vectors, _ = await cached.embed(["a", "bb", "ccc"], kind="document")
    assert vectors.shape == (3, 2)
    await cached.embed(["ccc", "bb"], kind="document")
    assert len(slow.paid) == 1
    await cached.embed(["a"], kind="document")
    assert len(slow.paid) == 2


async def test_the_cache_opens_pings_and_closes_what_is_inside():
    cached = CachedEmbedder(adopt(Documents()))
    vectors, _ = await cached.embed(["a"], kind="document")
    assert vectors.shape == (1, 2)
    assert cached.identity == "langchain/Documents/2"
    await cached.ping()
    await cached.close()


@pytest.mark.slow
def test_no_embedder_module_imports_numpy_or_an_sdk():
    folder = Path(offline.__file__).parent
    names = [f"llm_memory_plugins.providers.embedders.{path.stem}" for path in folder.glob("[!_]*.py")]
    heavy = {"numpy", "openai", "google", "httpx2", "wordllama", "tokenizers"}
    assert run(f"import sys, {', '.join(names)}\nprint({heavy!r} & set(sys.modules))").strip() == "set()"
