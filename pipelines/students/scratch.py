"""A base without pretrained weights: a byte-pair tokenizer trained on the corpus, and a small random BERT.

Training the tokenizer takes a few seconds per 10 MB of text. It is BPE because the trainers of WordPiece and Unigram in
the ``tokenizers`` library break ties at random: the same texts would give another student in every run.
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
    """A randomly initialised BERT and its tokenizer.

    Single characters take up at most half of the ``vocabulary``, which leaves room for words beside those of Chinese.
    """

    reads_corpus: ClassVar[bool] = True
    kind: Literal["scratch"] = "scratch"
    vocabulary: int = Field(30_000, ge=100)
    lowercase: bool = True
    hidden: int = Field(256, ge=8)
    layers: int = Field(2, ge=1)
    heads: int = Field(4, ge=1)
    positions: int = Field(512, ge=8)  # tokens of the longest text
    dropout: float = Field(0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _check_heads(self) -> "Scratch":
        if self.hidden % self.heads:
            raise ValueError(f"hidden = {self.hidden} must be a multiple of heads = {self.heads}")
        return self

    def build_module(self, corpus: Corpus, seed: int) -> "nn.Module":
        """Build the module (see ``Base``). Reads every text of the corpus twice."""
        import torch
        from sentence_transformers.sentence_transformer.modules import Transformer
        from transformers import BertConfig, BertModel

        tokenizer = self._train_tokenizer(corpus)
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

    def _train_tokenizer(self, corpus: Corpus) -> Any:
        from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
        from transformers import PreTrainedTokenizerFast

        bpe = Tokenizer(models.BPE(unk_token=SPECIAL["unk_token"]))
        bert = normalizers.BertNormalizer(lowercase=self.lowercase)  # puts spaces around Chinese characters
        single_spaces = normalizers.Replace(Regex(r"\s+"), " ")
        bpe.normalizer = normalizers.Sequence([bert, single_spaces, normalizers.Strip()])
        bpe.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()])
        bpe.decoder = decoders.Metaspace()
        special = [*SPECIAL.values(), *MARKERS]
        trainer = trainers.BpeTrainer(vocab_size=self.vocabulary, special_tokens=special, show_progress=False)
        bpe.train_from_iterator(self._replace_rare_characters(corpus, bpe.normalizer), trainer)
        bpe.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B [SEP]",
            special_tokens=[(token, bpe.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
        )
        return PreTrainedTokenizerFast(tokenizer_object=bpe, model_max_length=self.positions, **SPECIAL)

    def _replace_rare_characters(self, corpus: Corpus, normalizer: Any) -> Iterator[str]:
        """Yield the normalised texts, with spaces for the characters beyond the most frequent ``vocabulary`` / 2."""
        counts: Counter[str] = Counter()
        for text in corpus.iterate_texts():
            counts.update(normalizer.normalize_str(text))
        kept = sorted(counts, key=lambda character: (-counts[character], character))[: self.vocabulary // 2]
        rare = str.maketrans(dict.fromkeys(set(counts).difference(kept), " "))
        for text in corpus.iterate_texts():
            yield normalizer.normalize_str(text).translate(rare)
