"""The grammar of meta-tasks, the seven modes enumerated by hand, and what is refused, with its key and position."""

import pytest
from pydantic import ValidationError

from cluster.errors import RecipeError
from pipelines.training.meta.config import Meta
from pipelines.training.meta.specs import Part, Spec, list_tasks, parse

FOUR = ["el", "hi", "ar", "de"]  # of the table of the released code
MONO_MONO = ("el_el-ar_ar", "hi_hi-de_de")
MONO_BIL = ("el_el-el_ar", "hi_hi-hi_de")
MONO_MULTI = ("el_el-el_ar,el", "hi_hi-hi_de,hi")
BIL_MULTI = ("el_ar-el_ar,el", "hi_de-hi_de,hi")
ALIGN = ("el_el-el_ar-el_ar,el,hi", "hi_hi-hi_de-hi_de,hi,ar")
MIXT = MONO_MONO + MONO_BIL + MONO_MULTI + BIL_MULTI


@pytest.mark.parametrize(
    ("mode", "tasks"),
    [
        ("mono_mono", MONO_MONO),
        ("mono_bil", MONO_BIL),
        ("mono_multi", MONO_MULTI),
        ("bil_multi", BIL_MULTI),
        ("mixt", MIXT),
        ("trans", MONO_BIL),
        ("mono_bil_multi", ALIGN),
    ],
)
def test_the_modes_are_those_of_the_table(mode, tasks):
    assert list_tasks(mode, FOUR) == tasks


def test_languages_beyond_an_even_number_are_third_languages_alone():
    assert list_tasks("mono_bil_multi", ["en", "de", "ru"]) == ("en_en-en_de-en_de,en,ru",)
    five = list_tasks("mono_bil_multi", ["ar", "de", "el", "hi", "ru"])
    assert five == ("ar_ar-ar_el-ar_el,ar,de", "de_de-de_hi-de_hi,de,el")
    assert list_tasks("mono_bil", ["en", "de"]) == ("en_en-en_de",)


def test_a_specification_is_read_and_spelled():
    spec = parse("el_el-el_ar-el_ar,el,hi")
    assert spec == Spec(Part("el", ("el",)), (Part("el", ("ar",)), Part("el", ("ar", "el", "hi"))))
    assert str(spec) == "el_el-el_ar-el_ar,el,hi"
    assert parse("zh-Hant_zh-Hant-zh_en,zh").parts == (Part("zh-Hant", ("zh-Hant",)), Part("zh", ("en", "zh")))


def test_tasks_are_a_list_or_joined():
    joined = Meta(tasks="el_el-el_ar-el_ar,el,hi | hi_hi-hi_de-hi_de,hi,ar")
    assert joined == Meta(tasks=ALIGN)
    assert Meta(mode="mono_bil_multi", languages=FOUR).resolve(("ar", "de", "el", "hi")) == joined
    assert Meta(mode="mono_bil_multi").resolve(tuple(FOUR)) == joined


@pytest.mark.parametrize(
    ("tasks", "said"),
    [
        (["el_el-el_ar-el_ar,el", "el_el"], r"train\.meta\.tasks\[1\]: 'el_el' has 1 of the two or three sets"),
        (["a_b-c_d-e_f-g_h"], r"train\.meta\.tasks\[0\]: unknown language code 'a'"),
        (["el_el-elar-el_ar"], r"train\.meta\.tasks\[0\]: 'elar' in .*expected support-query"),
        (["el_el-el_ar,,hi"], r"train\.meta\.tasks\[0\]: 'el_ar,,hi' in "),
        (["el_el-el_ar,ar"], r"train\.meta\.tasks\[0\]: .*names a language of passages twice"),
        (["el_el-el_ar"], r"train\.meta\.tasks\[0\]: .*has one query set: maml_align aligns two"),
    ],
)
def test_a_task_that_does_not_parse_is_named(tasks, said):
    with pytest.raises(RecipeError, match=said):
        Meta(tasks=tasks)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "give tasks, as .*, or a mode, one of the two"),
        ({"tasks": ALIGN, "mode": "mono_bil_multi"}, "one of the two"),
        ({"tasks": ALIGN, "languages": FOUR}, "languages are those of a mode"),
        ({"mode": "mono_bil"}, "mode = mono_bil has one query set: maml_align aligns two"),
        ({"mode": "mono_bil_multi", "languages": ["el", "hi"]}, "is about 3 languages or more, got el, hi"),
    ],
)
def test_tables_that_do_not_fit_are_refused(fields, said):
    with pytest.raises(ValidationError, match=said):
        Meta(**fields)


def test_what_the_recipe_lacks_is_an_error_when_tasks_are_spelled_out():
    with pytest.raises(RecipeError, match=r"train\.meta\.tasks\[1\]: .* has passages in de, and languages.docs are el"):
        Meta(tasks=ALIGN).resolve(("el", "ar", "hi"))
    with pytest.raises(RecipeError, match=r"train\.meta\.mode = mono_bil_multi is about 3 languages"):
        Meta(mode="mono_bil_multi").resolve(("el", "ar"))
