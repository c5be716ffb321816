"""Neural machine translation by CTranslate2: Marian, M2M100 and NLLB checkpoints of Hugging Face.

A checkpoint is converted once per node and cached. Sources are sorted by length and decoded in batches that hold a
number of tokens, not of texts, so memory is bounded however long they are. CTranslate2 decodes 3 to 5 times faster than
transformers on a CPU, and int8 weights take a quarter of the memory.

How a model is told the languages:

    Marian   nothing, or a first token ``>>deu<<`` where a checkpoint has several targets
    M2M100   ``__en__`` before the source, ``__de__`` as the first target token
    NLLB     ``eng_Latn`` before the source, ``deu_Latn`` as the first target token
"""

import logging
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from cluster.component import Resources, Speed, fingerprint
from cluster.errors import RecipeError
from cluster.nodecache import cached
from pipelines import languages
from pipelines.devices import device
from pipelines.generation import Generated
from pipelines.models import Pretrained, resolve
from pipelines.translators.pieces import pieces, sentences

Floats = Literal["float32", "float16", "bfloat16"]
Integers = Literal["int8", "int8_float32", "int8_float16", "int8_bfloat16", "int16"]  # weights, and the rest
FAMILIES = ("marian", "m2m_100")  # transformers' model_type; NLLB checkpoints are m2m_100 too
# scripts in which pieces are joined with nothing between
WITHOUT_SPACES = {"Hans", "Hant", "Jpan", "Thai", "Laoo", "Khmr", "Mymr", "Tibt"}
# ISO 639-3: the language that is meant by a macrolanguage
INDIVIDUAL = {"zho": "cmn", "fas": "pes", "ara": "arb", "nor": "nob"}


class Nmt(Pretrained):
    """An encoder-decoder checkpoint run by CTranslate2.

    ``compute_type`` is what CTranslate2 computes with; "auto" is resolved at planning: float16 with GPUs, float32
    without. ``beam`` 1 is greedy.
    ``max_batch_tokens`` bounds a batch (texts times the longest of them). ``max_length`` is the longest source piece in
    tokens, None for the model's own limit: longer texts are cut at sentences; ``max_output`` is the longest translation
    of a piece, and bounds source pieces too. ``sentences`` translates each sentence by itself. Set it for NLLB and
    M2M100, which were trained on single sentences and leave out some of a longer text; OPUS-MT models keep them all,
    and gain from what stands around a sentence. ``target_token`` overrides the token that names the target language,
    for checkpoints whose codes are unusual. ``resources`` are of this stage's actors, None is ``resources.translate``.
    """

    may_be_student: ClassVar[bool] = False

    kind: Literal["nmt"] = "nmt"
    compute_type: Literal["auto"] | Floats | Integers = "float32"
    beam: int = Field(1, ge=1)
    max_batch_tokens: Speed = Speed(2048)
    max_length: int | None = Field(None, ge=8)
    max_output: int = Field(512, ge=1)
    sentences: bool = False
    target_token: str | None = None
    resources: Resources | None = None

    def build(self, source_lang: str, target_lang: str) -> "NmtTranslator":
        """Load the model on the device of this process; convert it first when this node has not yet."""
        return NmtTranslator(self, source_lang, target_lang)


class NmtTranslator:
    """A loaded model that translates from one language to another."""

    def __init__(self, config: Nmt, source_lang: str, target_lang: str) -> None:
        try:
            import ctranslate2
        except ImportError as error:
            raise RecipeError("translator 'nmt' needs CTranslate2: pip install 'babelray[nmt]'") from error
        from transformers import AutoConfig, AutoTokenizer

        checkpoint = Path(resolve(config))
        model_config = AutoConfig.from_pretrained(checkpoint)
        if model_config.model_type not in FAMILIES:
            raise RecipeError(
                f"translator 'nmt': {config.model} is a {model_config.model_type!r} model; expected Marian, M2M100 or "
                f"NLLB (model_type {' or '.join(FAMILIES)})"
            )
        self._config = config
        self._tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        if getattr(self._tokenizer, "separate_vocabs", False):
            raise RecipeError(
                f"translator 'nmt': {config.model} has two vocabularies; CTranslate2 converts those with one"
            )
        self._model = ctranslate2.Translator(
            str(converted(checkpoint)), device=device(), compute_type=_supported(config.compute_type)
        )
        self._source_prefix, self._target_prefix = language_tokens(self._tokenizer, config, source_lang, target_lang)
        limits = (model_config.max_position_embeddings, self._tokenizer.model_max_length, config.max_length or 10**9)
        self._max_output = min(config.max_output, model_config.max_position_embeddings)
        self._limit = int(min(*limits, self._max_output))
        self._glue = "" if languages.script(target_lang) in WITHOUT_SPACES else " "

    def translate(self, texts: list[str]) -> list[Generated]:
        """Translate each text; a text for which the model finds no words gives "". One of which a piece reached
        ``max_output`` did not end."""
        cut = [[p.strip() for p in self._pieces(text) if p.strip()] for text in texts]
        done = iter(self._decode([p for parts in cut for p in parts]))
        return [self._joined([next(done) for _ in parts]) for parts in cut]

    def _joined(self, parts: list[Generated]) -> Generated:
        return Generated(self._glue.join(p.text for p in parts if p.text), all(p.ended for p in parts))

    def tokens(self, text: str) -> list[str]:
        """The model's input for one piece of text: its subword tokens, language token and end of sentence."""
        ids = self._tokenizer(self._source_prefix + text, verbose=False)["input_ids"]
        return list(self._tokenizer.convert_ids_to_tokens(ids))

    def _pieces(self, text: str) -> list[str]:
        parts = sentences(text) if self._config.sentences else [text]
        return [piece for part in parts for piece in pieces(part, self._limit, lambda t: len(self.tokens(t)))]

    def _decode(self, sources: list[str]) -> list[Generated]:
        if not sources:
            return []
        prefix = [self._target_prefix] * len(sources) if self._target_prefix else None
        results = self._model.translate_batch(
            [self.tokens(text) for text in sources],
            target_prefix=prefix,
            beam_size=self._config.beam,
            max_batch_size=self._config.max_batch_tokens,
            batch_type="tokens",
            max_input_length=0,  # pieces() has seen to it; CTranslate2 would cut without a word
            min_decoding_length=0,  # the default of 1 would put a word where the model has none
            max_decoding_length=self._max_output,
            return_end_token=True,
        )
        return [self._text(result.hypotheses[0][len(self._target_prefix) :]) for result in results]

    def _text(self, tokens: list[str]) -> Generated:
        ids = self._tokenizer.convert_tokens_to_ids(tokens)
        text = str(self._tokenizer.decode(ids, skip_special_tokens=True)).strip()
        return Generated(text, ended=tokens[-1:] == [self._tokenizer.eos_token])


def language_tokens(tokenizer: Any, config: Nmt, source_lang: str, target_lang: str) -> tuple[str, list[str]]:
    """Tell the tokenizer the source language; return the text prefix and the first target tokens that name the target.

    Raises:
        RecipeError: the checkpoint has no token for the language.
    """
    if hasattr(tokenizer, "supported_language_codes"):  # Marian
        codes = tokenizer.supported_language_codes
        if not codes and config.target_token is None:
            return "", []
        token = config.target_token or _first(_marian_codes(target_lang), codes, config, target_lang)
        return _first([token], codes, config, target_lang) + " ", []
    known = tokenizer.get_vocab().keys() | getattr(tokenizer, "lang_token_to_id", {}).keys()
    if hasattr(tokenizer, "lang_code_to_token"):  # M2M100
        source, target = languages.to_m2m100(source_lang), f"__{languages.to_m2m100(target_lang)}__"
        _first([f"__{source}__"], known, config, source_lang)
    else:  # NLLB
        source, target = languages.to_nllb(source_lang), languages.to_nllb(target_lang)
        _first([source], known, config, source_lang)
    tokenizer.src_lang = source
    return "", [_first([config.target_token or target], known, config, target_lang)]


def _marian_codes(lang: str) -> list[str]:
    """OPUS-MT names a target by ISO 639-3, with a script where it has two (``>>cmn_Hans<<``), or by ISO 639-1."""
    three = languages.to_iso3(lang)
    names = [INDIVIDUAL.get(three, three), three]
    codes = [f"{name}_{languages.script(lang)}" for name in names] + names + [lang, lang.split("-")[0]]
    return [f">>{code}<<" for code in codes]


def _first(wanted: list[str], known: Any, config: Nmt, lang: str) -> str:
    found = [token for token in wanted if token in known]
    if not found:
        raise RecipeError(
            f"translator 'nmt': {config.model} does not know language {lang!r}: it has none of the tokens {wanted}. "
            "Choose another model, or name its token with `target_token`"
        )
    return found[0]


def _supported(compute_type: str) -> str:
    """The compute type. Raises RecipeError where this device lacks it: CTranslate2 would take another for some."""
    import ctranslate2

    supported = ctranslate2.get_supported_compute_types(device())
    if compute_type not in supported:
        raise RecipeError(
            f"translator 'nmt': compute_type = {compute_type!r} does not run on this {device()}; it has "
            f"{', '.join(sorted(supported))}. Name one of these, or give resources.translate a GPU"
        )
    return compute_type


def converted(checkpoint: Path) -> Path:
    """The directory of the CTranslate2 model made from ``checkpoint``, which is converted at most once per node."""
    import ctranslate2

    files = sorted(p for p in checkpoint.rglob("*") if p.is_file())
    key = {
        "checkpoint": checkpoint.resolve(),
        "files": [[str(p.relative_to(checkpoint)), p.stat().st_size, p.stat().st_mtime_ns] for p in files],
        "ctranslate2": ctranslate2.__version__,
    }
    return cached("ctranslate2", fingerprint(key), lambda out: _convert(checkpoint, out))


def _convert(checkpoint: Path, out: Path) -> None:
    from ctranslate2.converters import TransformersConverter

    class Converter(TransformersConverter):
        """As the base, with M2M100's language tokens in the vocabulary: transformers 5 leaves them out of get_vocab."""

        def load_tokenizer(self, tokenizer_class: Any, model_name_or_path: str, **options: Any) -> Any:
            tokenizer = super().load_tokenizer(tokenizer_class, model_name_or_path, **options)
            language_ids = getattr(tokenizer, "lang_token_to_id", {})
            vocabulary = {**tokenizer.get_vocab(), **language_ids}
            tokenizer.get_vocab = lambda: vocabulary
            return tokenizer

    logging.getLogger(__name__).info("converting %s to CTranslate2", checkpoint.name)
    Converter(str(checkpoint)).convert(str(out))
