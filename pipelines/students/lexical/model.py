"""The lexical student as a model: its one module, its prompts, and the files that sentence-transformers opens.

It does what ``sentence_transformers.MultiVectorEncoder`` does with the same module, and does not import it: a process
that encodes with a lexical student needs torch alone. On two cores of an AMD EPYC ``import torch`` takes 3 s of a
processor and 220 MB, ``import sentence_transformers`` 13 s and 540 MB.
"""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from pipelines.students.lexical.vectors import WordVectors

MODULES_FILE, MODEL_FILE = "modules.json", "config_sentence_transformers.json"
MODULE_TYPE = f"{WordVectors.__module__}.{WordVectors.__qualname__}"


class LexicalModel(nn.Sequential):
    """One ``WordVectors`` module, with the part of a sentence-transformers model that ``TextEncoder`` and ``Tokens``
    use.

    Attributes:
        prompts: by task, what stands before each text.
    """

    similarity_fn_name = None
    is_lookup = True

    def __init__(self, module: WordVectors, prompts: dict[str, str] | None = None):
        super().__init__(module)
        self.prompts = prompts or {"document": "", "query": ""}

    @property
    def tokenizer(self) -> Any:
        """See ``WordSpans``."""
        return self._words.tokenizer

    @property
    def max_seq_length(self) -> int:
        """Length of the longest document that is read whole, in words."""
        return self._words.max_seq_length

    def get_embedding_dimension(self) -> int:
        """Return D, the dimension of the vectors."""
        return self._words.get_embedding_dimension()

    def preprocess(self, inputs: list[str], prompt: str | None = None, **kwargs: Any) -> dict[str, Any]:
        """Compute the features of texts; see ``WordVectors.preprocess``."""
        return self._words.preprocess(inputs, prompt=prompt, **kwargs)

    def forward(self, features: dict[str, Any], task: str | None = None) -> dict[str, Any]:
        """Add ``token_embeddings``, float32 [B, T, D]; see ``WordVectors.forward``."""
        return self._words(features, task=task)

    def save(self, directory: str, **_: Any) -> None:
        """Write a directory that this class and ``sentence_transformers.MultiVectorEncoder`` open."""
        Path(directory).mkdir(parents=True, exist_ok=True)
        modules = [{"idx": 0, "name": "0", "path": "", "type": MODULE_TYPE}]
        model = {
            "__version__": {
                "pytorch": torch.__version__,
                "sentence_transformers": version("sentence-transformers"),
                "transformers": version("transformers"),
            },
            "default_prompt_name": None,
            "model_type": "MultiVectorEncoder",
            "prompts": self.prompts,
            "similarity_fn_name": None,
        }
        for name, value in ((MODULES_FILE, modules), (MODEL_FILE, model)):
            (Path(directory) / name).write_text(json.dumps(value, indent=2), encoding="utf-8")
        self._words.save(directory)

    @classmethod
    def load(cls, directory: str) -> Self:
        """Load what ``save`` wrote."""
        saved = json.loads((Path(directory) / MODEL_FILE).read_text(encoding="utf-8"))
        return cls(WordVectors.load(directory), saved["prompts"])

    @property
    def _words(self) -> Any:
        return self[0]
