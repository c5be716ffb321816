"""The encoder at work: a sentence-transformers model, batched by length, for inference and for training.

Texts are tokenised into rows without padding (``tokens``), long documents cut into passages (``passages``); rows of
similar length go through the model together, as many as a token budget allows. On an accelerator the next chunk of
texts is tokenised while the last one is computed. Imports torch: load it where a model is wanted, through
``pipelines.students.load_encoder``.

Tensor names end in their shape: B rows, T tokens, D dimensions.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from pipelines.batching import by_length
from pipelines.precision import Precision
from pipelines.students import passages
from pipelines.students.base import Similarity, Task
from pipelines.students.inference import map_batches
from pipelines.students.tokens import Row, Tokens

if TYPE_CHECKING:
    from sentence_transformers import MultiVectorEncoder, SentenceTransformer

    from pipelines.students.lexical.model import LexicalModel

    Model = MultiVectorEncoder | SentenceTransformer | LexicalModel

TEXTS_PER_CHUNK = 1024  # tokenised and sorted together: sorting more saves hardly any padding
# Padding included. A CPU: MiniLM's forward pass is fastest at 2,048 of 512 to 16,384 tokens, 1.1 to 1.2 times 8,192, in
# fp32 and bf16 (two idle cores). A GPU: chosen to fit beside a large model in 24 GB, and not measured.
TOKENS_PER_BATCH = {"cpu": 2_048, "cuda": 65_536}

Item = TypeVar("Item")
Result = TypeVar("Result")


class TextEncoder:
    """An encoder (see ``pipelines.students.base.Encoder``) that can also be trained: ``rows`` and ``embed`` are the two
    halves of encoding, with gradients.

    Attributes:
        model: the sentence-transformers model, or what does the same for a lexical student; its weights in float32.
        similarity: how its vectors are compared.
        precision: what ``encode_queries``, ``encode_docs`` and ``encode_passages`` compute with; ``embed`` computes as
            the caller's autocast says.
        batch_tokens: tokens of a batch, padding included.
    """

    def __init__(
        self,
        model: "Model",
        similarity: Similarity,
        precision: Precision = "fp32",
        batch_tokens: int | None = None,
    ):
        self.model, self.similarity, self.precision = model, similarity, precision
        self.dim = int(model.get_embedding_dimension() or 0)
        self.batch_tokens = batch_tokens or TOKENS_PER_BATCH[self.device.type]
        # a model that compares by cosine without normalising is normalised here, so that dot products are cosines
        self._normalize = self.similarity == "dot" and model.similarity_fn_name == "cosine"
        self._tokens_of: dict[tuple[Task, str | None], Tokens] = {}

    @property
    def normalizes(self) -> bool:
        """Whether vectors are unit vectors."""
        # by name: importing the library's class takes seconds, which a lexical student does not need
        return self._normalize or type(self.model[-1]).__name__ == "Normalize"

    @property
    def is_lookup(self) -> bool:
        """Whether the student looks its vectors up: a batch of any size then takes no more memory than its vectors."""
        return getattr(self.model, "is_lookup", False)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    def encode_queries(self, texts: Sequence[str]) -> list[np.ndarray]:
        """See ``Encoder``."""
        return list(self._encode(texts, "query", self._tokens("query").rows))

    def encode_docs(self, texts: Sequence[str]) -> list[np.ndarray]:
        """See ``Encoder``."""
        return list(self._encode(texts, "document", self._tokens("document").rows))

    def encode_passages(self, texts: Sequence[str], length: int, stride: int) -> Iterator[list[np.ndarray]]:
        """See ``Encoder``. ``length`` is cut to what the model reads beside its marker and special tokens."""
        counts: list[int] = []

        def tokenise(chunk: Sequence[str]) -> list[Row]:
            rows = passages.passage_rows(self._tokens("document"), chunk, length, stride)
            counts.extend(map(len, rows))
            return [row for of_text in rows for row in of_text]

        encoded = self._encode(texts, "document", tokenise)
        for number in range(len(texts)):
            first = next(encoded)  # which tokenises the chunk of this text, if it is not yet
            yield [first, *(next(encoded) for _ in range(counts[number] - 1))]

    def windows(self, texts: Sequence[str], length: int = 180, stride: int = 90) -> list[list[str]]:
        """See ``Encoder``."""
        return passages.cut(self._tokens("document"), texts, length, stride)

    def rows(self, texts: Sequence[str], task: Task, prompt: str | None = None) -> list[Row]:
        """Tokenise: the features of each text, without padding. ``prompt`` takes the place of the model's own."""
        return self._tokens(task, prompt).rows(texts)

    def embed(self, rows: Sequence[Row], task: Task) -> tuple[Tensor, Tensor]:
        """Vectors float [B, T, D] and which of them count, bool [B, T]; T is 1 for a dense encoder. Gradients flow."""
        features = self._pad(rows)
        features = {k: v.to(self.device) if isinstance(v, Tensor) else v for k, v in features.items()}
        out = self.model(features, task=task)
        if self.similarity == "maxsim":
            return out["token_embeddings"], out["attention_mask"].bool()
        vectors_BD = out["sentence_embedding"]
        if self._normalize:
            vectors_BD = normalize(vectors_BD, dim=-1)
        return vectors_BD[:, None], torch.ones(len(rows), 1, dtype=torch.bool, device=vectors_BD.device)

    def with_model(self, model: Any) -> "TextEncoder":
        """An encoder like this one, of a copy of its model."""
        return TextEncoder(model, self.similarity, self.precision, self.batch_tokens)

    def save(self, directory: Path) -> None:
        """Write an ordinary sentence-transformers directory."""
        self.model.save(str(directory), create_model_card=False)

    def _tokens(self, task: Task, prompt: str | None = None) -> Tokens:
        if (task, prompt) not in self._tokens_of:
            self._tokens_of[task, prompt] = Tokens(self.model, task, prompt)
        return self._tokens_of[task, prompt]

    def _encode(
        self, texts: Sequence[str], task: Task, tokenise: Callable[[Sequence[str]], list[Row]]
    ) -> Iterator[np.ndarray]:
        """The vectors of every row that ``tokenise`` makes of ``texts``, chunk after chunk."""
        self.model.eval()
        chunks = [texts[start : start + TEXTS_PER_CHUNK] for start in range(0, len(texts), TEXTS_PER_CHUNK)]
        # on a CPU a thread beside the computing ones only takes their cores
        ahead = self.device.type != "cpu" and len(chunks) > 1
        for rows in _map_ahead(tokenise, chunks) if ahead else map(tokenise, chunks):
            yield from self._encode_rows(rows, task)

    def _encode_rows(self, rows: Sequence[Row], task: Task) -> list[np.ndarray]:
        def embed_batch(batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            vectors_BTD, mask_BT = self.embed([rows[i] for i in batch], task)
            return vectors_BTD.float().cpu().numpy(), mask_BT.cpu().numpy()

        encoded: list[np.ndarray] = [np.empty(0)] * len(rows)
        batches = by_length([len(row["input_ids"]) for row in rows], self.batch_tokens)
        safe = not self.is_lookup  # a lookup writes vectors of new words into its table, which two threads must not
        embedded = map_batches(embed_batch, batches, self.device.type, self.precision, is_thread_safe=safe)
        for batch, (vectors, mask) in zip(batches, embedded, strict=True):
            for i, v, m in zip(batch, vectors, mask, strict=True):
                encoded[i] = v[m] if m.any() else np.zeros((1, self.dim), np.float32)  # nothing that can match
        return encoded

    def _pad(self, rows: Sequence[Row]) -> dict[str, Any]:
        padding = {"input_ids": getattr(self.model.tokenizer, "pad_token_id", None) or 0}
        return {
            name: torch.nn.utils.rnn.pad_sequence(
                [row[name] for row in rows], batch_first=True, padding_value=padding.get(name, 0)
            )
            if isinstance(value, Tensor)
            else value
            for name, value in rows[0].items()
        }


def _map_ahead(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """``map``, with the next item computed in a thread while the caller works on the last one."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(function, items[0])
        for item in items[1:]:
            result, coming = coming.result(), thread.submit(function, item)
            yield result
        yield coming.result()
