"""What tests of the vector memory store, and an embedder they can watch."""

from llm_memory_plugins.errors import ModelError
from llm_memory_plugins.providers.embedders.offline import OfflineEmbedder

FACTS = [
    "The lighthouse keeper feeds seven cats.",
    "Our invoices are due within thirty days.",
    "The lake freezes over in the second week of January.",
    "Maria plays the cello in the town orchestra.",
    "The bakery on Elm Street closes at noon on Sundays.",
]


class Watched(OfflineEmbedder):
    """Counts what it is asked for, and can be down."""

    def __init__(self, *, name=None, max_tokens=None):
        super().__init__()
        self.name = name or self.name
        self.max_tokens = max_tokens
        self.asked = []
        self.down = False

    async def _ask(self, texts, kind):
        if self.down:
            raise ModelError("the embedder is down", retryable=True)
        self.asked += [(kind, text) for text in texts]
        return await super()._ask(texts, kind)

    def documents(self):
        return [text for kind, text in self.asked if kind == "document"]
