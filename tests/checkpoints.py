"""Tiny checkpoints, real in every file, made in seconds: for translation Marian, M2M100 and NLLB, and XLM-R."""

import json
import random
from collections.abc import Iterable
from pathlib import Path

import torch

TEXT = """the river runs through old city and its bridge was built of stone by people who came from north to trade
salt wool wine every spring market day under tall tower"""
WORDS = TEXT.split()


def sentences() -> list[str]:
    rng = random.Random(0)
    return [" ".join(rng.choices(WORDS, k=rng.randint(4, 14))).capitalize() + "." for _ in range(400)]


def sentencepiece_model(folder: Path, lines: list[str]) -> Path:
    import sentencepiece

    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_prefix=str(folder / "m"),
        vocab_size=100,
        character_coverage=1.0,
        bos_id=-1,
        eos_id=0,
        unk_id=1,
        minloglevel=2,
    )
    return folder / "m.model"


def marian_tokenizer(folder: Path, spm: Path, extra: tuple[str, ...] = ()):
    import sentencepiece
    from transformers import MarianTokenizer

    folder.mkdir(exist_ok=True)
    model = sentencepiece.SentencePieceProcessor(model_file=str(spm))
    tokens = [*(model.id_to_piece(i) for i in range(len(model))), *extra, "<pad>"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    for side in ("source", "target"):
        (folder / f"{side}.spm").write_bytes(spm.read_bytes())
    return MarianTokenizer(*(str(folder / f) for f in ("source.spm", "target.spm", "vocab.json")))


def opus_sized_marian(folder: Path, words: tuple[str, ...]) -> None:
    """A MarianMTModel of the size of OPUS-MT's (6 + 6 layers of 512) with these words and random weights, which never
    ends a translation: what it costs depends on the limit of tokens alone."""
    from transformers import MarianConfig, MarianMTModel

    folder.mkdir(parents=True)
    tokenizer = marian_tokenizer(folder, sentencepiece_model(folder, sentences()), words)
    sizes = {"layers": 6, "attention_heads": 8, "ffn_dim": 2048}
    shape = {f"{side}_{name}": size for side in ("encoder", "decoder") for name, size in sizes.items()}
    pad = tokenizer.pad_token_id
    config = MarianConfig(
        vocab_size=len(tokenizer),
        d_model=512,
        **shape,
        max_position_embeddings=512,
        pad_token_id=pad,
        decoder_start_token_id=pad,
        eos_token_id=0,
        forced_eos_token_id=None,
    )
    model = MarianMTModel(config)
    model.final_logits_bias[0, 0] = -1e4  # of the end of sentence
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def marian(folder: Path, spm: Path, lines: list[str]) -> None:
    """A MarianMTModel of 50 k weights, trained for two seconds to copy, so that its outputs are words and they end."""
    from transformers import MarianConfig, MarianMTModel

    tokenizer = marian_tokenizer(folder, spm)
    torch.manual_seed(0)
    pad = tokenizer.pad_token_id
    sizes = {"layers": 1, "attention_heads": 4, "ffn_dim": 96}
    shape = {f"{side}_{name}": size for side in ("encoder", "decoder") for name, size in sizes.items()}
    config = MarianConfig(
        vocab_size=len(tokenizer),
        d_model=48,
        **shape,
        max_position_embeddings=64,
        pad_token_id=pad,
        decoder_start_token_id=pad,
        eos_token_id=0,
        bos_token_id=0,
        forced_eos_token_id=None,
        scale_embedding=True,
        activation_function="swish",
        dropout=0.0,
    )
    model = MarianMTModel(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    rng = random.Random(1)
    for _ in range(150):
        batch = tokenizer(rng.sample(lines, 32), return_tensors="pt", padding=True)
        labels = batch["input_ids"].masked_fill(batch["input_ids"] == pad, -100)
        model(**batch, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():  # Marian decodes from a zero vector, which transformers stores as the embedding of <pad>
        model.get_input_embeddings().weight[pad] = 0
    model.generation_config.bad_words_ids = [[pad]]  # as every published Marian checkpoint has it
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def m2m100(folder: Path, spm: Path) -> None:
    """An M2M100 checkpoint of random weights."""
    import sentencepiece
    from transformers import M2M100Tokenizer

    model = sentencepiece.SentencePieceProcessor(model_file=str(spm))
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *(model.id_to_piece(i) for i in range(2, len(model)))]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    tokenizer = M2M100Tokenizer(str(folder / "vocab.json"), str(spm), src_lang="en", tgt_lang="de")
    tokenizer.save_pretrained(folder)
    _random(folder, len(tokens) + len(tokenizer.lang_code_to_token) + 8)


def nllb(folder: Path, lines: list[str]) -> None:
    """An NLLB checkpoint of random weights."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import NllbTokenizer

    bpe = Tokenizer(models.BPE(unk_token="<unk>"))
    bpe.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    bpe.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=150, special_tokens=special, show_progress=False))
    model = json.loads(bpe.to_str())["model"]
    tokenizer = NllbTokenizer(vocab=model["vocab"], merges=[tuple(m) for m in model["merges"]])
    tokenizer.save_pretrained(folder)
    _random(folder, len(tokenizer) + 2)


def _random(folder: Path, vocabulary: int) -> None:
    from transformers import M2M100Config, M2M100ForConditionalGeneration

    torch.manual_seed(1)
    config = M2M100Config(
        vocab_size=vocabulary,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=64,
        init_std=0.5,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
        decoder_start_token_id=2,
    )
    M2M100ForConditionalGeneration(config).save_pretrained(folder)


def xlm_roberta(folder: Path, texts: list[str], positions: int = 66, seed: int = 0) -> None:
    """An XLM-R of one layer and random weights, with positions for ``positions`` − 2 tokens. Its Unigram vocabulary has
    the whole words and single letters of ``texts``, and every mark of punctuation by itself and behind a space."""
    import string

    from transformers import XLMRobertaConfig, XLMRobertaModel, XLMRobertaTokenizer

    words = sorted({f"▁{word}" for text in texts for word in text.split()})
    letters = sorted({letter for text in texts for letter in text if not letter.isspace()} - set(string.punctuation))
    marks = [piece for mark in string.punctuation for piece in (mark, f"▁{mark}")]
    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces += [(word, -4.0) for word in words] + [(piece, -6.0) for piece in [*marks, *letters, "▁"]]
    tokenizer = XLMRobertaTokenizer(vocab=[*pieces, ("<mask>", 0.0)])
    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    config = XLMRobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=positions,
        type_vocab_size=1,
    )
    XLMRobertaModel(config, add_pooling_layer=False).save_pretrained(folder)


def walk(text: str) -> str:
    """From the last word of a text on through the alphabet, to the next word of which the place is a multiple of 5."""
    words = sorted(set(WORDS))
    start = words.index(text.lower().rstrip(".").split()[-1])
    end = next(i for i in range(start, start + 5) if i % 5 == 0)
    return "".join(f" {word}" for word in words[start : end + 1])


def qwen2(folder: Path, lines: list[str], prompt: str, chat: bool = False) -> None:
    """A Qwen2 model of 0.4 M weights with heads of 64 (vLLM's kernels for processors want such), trained for some
    seconds to answer ``prompt``, which has ``{text}``, with words that depend on the text's last, and to end."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<end>", "<user>", "<model>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator([*lines, *["yes no"] * 100], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<end>", pad_token="<end>")
    template = "{% for m in messages %}<user>{{ m['content'] }}<model>{% endfor %}"
    if chat:
        tokenizer.chat_template = template
    before, after = ("<user>", "<model>") if chat else ("", "")
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=256,
        eos_token_id=0,
        pad_token_id=0,
        bos_token_id=None,
        tie_word_embeddings=True,
    )
    model = Qwen2ForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    rng = random.Random(1)
    for _ in range(100):
        texts = rng.sample(lines, 16)
        asked = [before + prompt.replace("{text}", text) + after for text in texts]
        answers = [a + walk(text) + "<end>" for a, text in zip(asked, texts, strict=True)]
        tokens = tokenizer(answers, return_tensors="pt", padding=True)
        labels = tokens["input_ids"].masked_fill(tokens["attention_mask"] == 0, -100)
        for row, length in enumerate(len(ids) for ids in tokenizer(asked)["input_ids"]):
            labels[row, :length] = -100
        model(**tokens, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def cross_encoder(folder: Path, words: Iterable[str], layers: int) -> None:
    """Write a BERT of one output with random weights and these words, whose logits leave [0, 1]."""
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

    vocabulary = {word: at for at, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words])}
    BertTokenizer(vocab=vocabulary).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        num_labels=1,
        initializer_range=0.6,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
