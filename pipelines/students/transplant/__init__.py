"""A base that reads other languages with an English encoder: its body stays, and its vocabulary grows.

vocabulary   pieces of the other languages' words, beside those that the tokenizer has
rows         vectors of the new pieces, from those of the English pieces in aligned sentences
base         the component
"""

from pipelines.students.transplant.base import Transplant

__all__ = ["Transplant"]
