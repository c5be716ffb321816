"""``babelray``: the verbs of recipes, of serving and of the cluster in one command.

``python -m pipelines``, ``python -m serving`` and ``python -m cluster`` have the same verbs. This module stands in
``serving``, which may import the other two packages.
"""

import typer

from cluster.__main__ import app as cluster
from pipelines.__main__ import app as pipelines
from serving.__main__ import app as serving

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help=pipelines.info.help,
)
app.registered_commands = [command for part in (pipelines, serving, cluster) for command in part.registered_commands]


def main() -> None:
    """Run the command line."""
    app(prog_name="babelray")
