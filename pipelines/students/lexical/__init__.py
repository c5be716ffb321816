"""The lexical student: words as vectors, whose letters tell what no training text has shown."""

from pipelines.students.lexical.student import Lexical

__all__ = ["Lexical"]
