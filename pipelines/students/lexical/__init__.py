"""The lexical student: word vectors, computed from the letters of a word where training has not shown it."""

from pipelines.students.lexical.student import Lexical

__all__ = ["Lexical"]
