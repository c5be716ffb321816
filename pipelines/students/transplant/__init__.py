"""A base that reads other languages with an English encoder: its body stays, and its vocabulary grows.

vocabulary   pieces of the other languages' words, beside those that the tokenizer has
sentences    aligned sentences, cut into pieces
rows         vectors of the new pieces: means of those of the English pieces that translate them …
fit          … which then move until sentences stand where their translations stand
base         the component
"""

from pipelines.students.transplant.base import Transplant

__all__ = ["Transplant"]
