"""The sentences of PAIRS artifacts by the ids of their pairs: one store for the left ones, one for the right ones."""

from pipelines.docstore import Docstore


class LeftSentences(Docstore):
    """The left sentence of each pair."""

    text_column = "left"


class RightSentences(Docstore):
    """The right sentence of each pair."""

    text_column = "right"
