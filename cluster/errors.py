"""The errors a user can act on. Everything else is a bug and shows its traceback.

    BabelrayError
    ├── RecipeError      a recipe, a --set or an argument is wrong
    ├── TableError       rows break their table's contract
    ├── StorageError     a place cannot be read or written
    └── StepError        a step could not be finished
        └── LeaseLostError   another driver makes its artifact

Each message says what was expected, what came, and what to do.
"""


class BabelrayError(Exception):
    """Base class: the command line prints the message of these alone, without a traceback."""


class RecipeError(BabelrayError):
    """A recipe file, a ``--set`` override or a command-line argument is wrong."""


class TableError(BabelrayError):
    """Rows do not fulfil the contract of the table they are written to."""


class StorageError(BabelrayError):
    """A path or an object store cannot be used as asked."""


class StepError(BabelrayError):
    """A step could not be finished; what it wrote so far is kept and the next run goes on from there."""


class LeaseLostError(StepError):
    """Another driver makes an artifact, or has made it: this one must not write below it any more."""
