"""Prompts of language models: where they come from, what they must hold, and that their text is in the fingerprint."""

import pytest
from pydantic import ValidationError

from cluster.component import fingerprint
from pipelines.prompts import fill_prompt, read_prompt
from pipelines.translators import Llm, OpenAi
from pipelines.translators.prompted import PLACEHOLDERS

TEXT = "{source_language} to {target_language}: {text}"


def test_a_prompt_is_a_name_a_file_or_a_text(tmp_path):
    (file := tmp_path / "mine.txt").write_text(TEXT + "\n")
    assert Llm(model="m", prompt=str(file)).prompt == Llm(model="m", prompt=TEXT).prompt == TEXT
    assert Llm(model="m").prompt == read_prompt("translate", "pipelines.translators", PLACEHOLDERS)
    assert "{target_language}" in Llm(model="m").prompt


def test_the_text_of_a_prompt_is_in_the_fingerprint(tmp_path):
    (file := tmp_path / "mine.txt").write_text(TEXT)
    first = Llm(model="m", prompt=str(file))
    file.write_text(TEXT + "!")
    changed = Llm(model="m", prompt=str(file))
    assert len({fingerprint(c) for c in (Llm(model="m"), first, changed)}) == 3
    assert fingerprint(Llm(**first.model_dump())) == fingerprint(first)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("{source_language} to {target_language}\n", "prompt.*lacks {text}"),
        ("Into German: {text}", "prompt.*lacks {source_language}, {target_language}"),
        (TEXT + " {tone}", "prompt.*nothing fills {tone}"),
        ("transalte", r"prompt: expected a name \(translate\), .* got 'transalte'"),
        ("./nowhere.txt", "prompt: expected a name"),
        ("Translate this into German, please. " * 8, "prompt.*lacks {source_language}"),
        ("so/ " * 2000, "prompt.*lacks {source_language}"),
    ],
)
@pytest.mark.parametrize("kind", [Llm, OpenAi])
def test_a_prompt_without_its_placeholders_is_an_error(kind, prompt, message):
    place = {"url": "http://a"} if kind is OpenAi else {}
    with pytest.raises(ValidationError, match=message):
        kind(model="m", prompt=prompt, **place)


def test_a_value_is_not_read_as_a_prompt():
    assert fill_prompt("{a} {b}", a="{b}", b="{a} {x}") == "{b} {a} {x}"


@pytest.mark.parametrize("ratios", [{"en-xx": 2}, {"enth": 2}, {"en-th": 0}])
def test_ratios_are_of_pairs_of_languages(ratios):
    with pytest.raises(ValidationError, match="max_ratios: expected pairs"):
        Llm(model="m", max_ratios=ratios)
    Llm(model="m", max_ratios={"en-zh-Hant": 2, "zh-Hant-en": 3})
