"""A student that begins from nothing: a byte-pair vocabulary trained on the collection, and a small random BERT.

Training the tokenizer costs a few seconds per 10 MB of text. It is BPE since the trainers of WordPiece and Unigram in
the ``tokenizers`` library break ties by chance: the same texts would give another student in every run.
"""

import tempfile
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from cluster.component import Component
from pipelines.students.base import Corpus

if TYPE_CHECKING:
    from torch import nn

SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
MARKERS = ("[unused0]", "[unused1]")


class Scratch(Component):
    """A BERT of ``layers`` layers. The alphabet is at most half of the vocabulary, which leaves room for words beside
    the characters of Chinese."""

    reads_corpus: ClassVar[bool] = True
    kind: Literal["scratch"] = "scratch"
    vocabulary: int = Field(30_000, ge=100)
    lowercase: bool = True
    hidden: int = Field(256, ge=8)
    layers: int = Field(2, ge=1)
    heads: int = Field(4, ge=1)
    positions: int = Field(512, ge=8)  # the longest text, in tokens
    dropout: float = Field(0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _heads_divide(self) -> "Scratch":
        if self.hidden % self.heads:
            raise ValueError(f"hidden = {self.hidden} must be a multiple of heads = {self.heads}")
        return self

    def module(self, corpus: Corpus, seed: int) -> "nn.Module":
        """See ``Base``. Reads every text of the corpus once."""
        import torch
        from sentence_transformers.sentence_transformer.modules import Transformer
        from transformers import BertConfig, BertModel

        tokenizer = self._tokenizer(corpus)
        torch.manual_seed(seed)
        model = BertModel(
            BertConfig(
                vocab_size=len(tokenizer),
                hidden_size=self.hidden,
                num_hidden_layers=self.layers,
                num_attention_heads=self.heads,
                intermediate_size=4 * self.hidden,
                max_position_embeddings=self.positions,
                hidden_dropout_prob=self.dropout,
                attention_probs_dropout_prob=self.dropout,
                pad_token_id=tokenizer.pad_token_id,
            )
        )
        with tempfile.TemporaryDirectory() as directory:
            model.save_pretrained(directory)
            tokenizer.save_pretrained(directory)
            return Transformer(directory)

    def _tokenizer(self, corpus: Corpus) -> Any:
        from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
        from transformers import PreTrainedTokenizerFast

        bpe = Tokenizer(models.BPE(unk_token=SPECIAL["unk_token"]))
        apart = normalizers.BertNormalizer(lowercase=self.lowercase)  # puts spaces around Chinese characters
        single = normalizers.Replace(Regex(r"\s+"), " ")
        bpe.normalizer = normalizers.Sequence([apart, single, normalizers.Strip()])
        bpe.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()])
        bpe.decoder = decoders.Metaspace()
        special = [*SPECIAL.values(), *MARKERS]
        trainer = trainers.BpeTrainer(vocab_size=self.vocabulary, special_tokens=special, show_progress=False)
        bpe.train_from_iterator(self._common_characters(corpus, bpe.normalizer), trainer)
        bpe.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B [SEP]",
            special_tokens=[(token, bpe.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
        )
        return PreTrainedTokenizerFast(tokenizer_object=bpe, model_max_length=self.positions, **SPECIAL)

    def _common_characters(self, corpus: Corpus, normalizer: Any) -> Iterator[str]:
        """The texts, normalised, without the characters that are too rare for the alphabet."""
        counts: Counter[str] = Counter()
        for text in corpus.texts():
            counts.update(normalizer.normalize_str(text))
        kept = sorted(counts, key=lambda character: (-counts[character], character))[: self.vocabulary // 2]
        rare = str.maketrans(dict.fromkeys(set(counts).difference(kept), " "))
        for text in corpus.texts():
            yield normalizer.normalize_str(text).translate(rare)
