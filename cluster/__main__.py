"""``babelray doctor``, also as ``python -m cluster doctor``: is this cluster ready for a recipe?"""

from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cluster import session
from cluster.doctor import examine, hold_workers
from cluster.findings import Node, Report

app = typer.Typer(
    add_completion=False, no_args_is_help=True, rich_markup_mode="markdown", pretty_exceptions_enable=False
)


@app.callback()
def main() -> None:
    """Look after the Ray cluster that recipes run on."""


@app.command()
def doctor(
    root: Annotated[
        str | None,
        typer.Option(
            help="Where artifacts will be: a path, s3://…, gs://… or abfs://…. Without it storage is not checked."
        ),
    ] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to wait for the nodes' answers.")] = 60,
    workers: Annotated[int, typer.Option(min=0, help="Ask the cluster for so many workers, and examine them too.")] = 0,
    gpus: Annotated[bool, typer.Option("--gpus", help="The workers asked for have a GPU each.")] = False,
    wait: Annotated[float, typer.Option(min=1, help="Seconds to wait for the workers asked for.")] = 900,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON, for machines.")] = False,
) -> None:
    """Examine every node: does it answer, is its software the others', can it use the storage?

    Examines the cluster named by `RAY_ADDRESS` (inside `ray job submit` that is set), or a small local one started for
    the purpose. Each problem comes with what to do. A cluster whose workers come when they are needed has none to
    examine: `--workers` asks for some.

    Exit code: 0 when all is well, or when what is found does not stop a run; 1 when something is wrong.

    Example: `RAY_ADDRESS=auto babelray doctor --root s3://my-bucket/runs`
    """
    try:
        session.connect()
    except (ConnectionError, RuntimeError, ValueError) as error:
        typer.echo(f"cannot connect to Ray: {error}\nCheck RAY_ADDRESS and `ray status` on the head.", err=True)
        raise typer.Exit(1) from error
    with hold_workers(workers, gpus, wait) as missing:
        report = examine(root, timeout, missing)
    if as_json:
        typer.echo(report.model_dump_json(indent=2))
    else:
        show(report, Console())
    if not report.is_well:
        raise typer.Exit(1)


def show(report: Report, console: Console) -> None:
    """Print the report for people: a row per node, the versions, then the problems."""
    private = "a private one on this machine (RAY_ADDRESS is not set)"
    ray = private if report.private else f"the cluster at {report.address}"
    console.print(f"Ray: [bold]{escape(ray)}[/], storage: [bold]{escape(report.root or 'not checked')}[/]\n")
    table = Table("node", "state", "CPUs", "memory", "accelerators", "write, read,\nlist, delete (ms)", padding=(0, 1))
    table.columns[0].no_wrap = table.columns[5].no_wrap = True
    for node in (report.driver, *report.nodes):
        table.add_row(*_cells(node))
    console.print(table)
    show_machines(report, console)
    versions = ", ".join(f"{name} {version or '–'}" for name, version in report.driver.software.items())
    console.print(f"\n[dim]driver: {versions}[/]\n")
    for problem in report.problems:
        mark = "[bold yellow]!" if problem.warns else "[bold red]✗"
        console.print(f"{mark} {escape(problem.where)}[/] {escape(problem.what)}\n  → {escape(problem.todo)}\n")
    if not report.problems:
        console.print("[bold green]✓ all is well[/]")


def show_machines(report: Report, console: Console) -> None:
    """Print what each node's machine is: a row per node that answered."""
    machines = [(node, node.machine) for node in report.nodes if node.machine]
    if not machines:
        return
    table = Table("machine of", "token", "disk free", "/dev/shm", "clock off", "GPU driver", padding=(0, 1))
    table.columns[0].no_wrap = True
    for node, machine in machines:
        table.add_row(
            escape(node.name),
            "asked for" if machine.token else "off",
            f"{machine.disk_free_gb:.0f} GiB ({1 - machine.disk_full:.0%})",
            f"{machine.shared_memory_gb:.1f} GiB",
            f"{machine.clock_off_s:.1f} s",
            machine.gpu_driver or "–",
        )
    console.print(table)


def _cells(node: Node) -> tuple[str, ...]:
    if node.id == "driver":
        return "driver", "here", "", "", "", _storage(node)
    state = "[dim]gone[/]" if not node.alive else "[red]no answer[/]" if node.error else "[green]alive[/]"
    accelerators = ", ".join(f"{count:g} × {kind}" for kind, count in node.accelerators.items()) or "–"
    name = node.name + (" head" if node.head else "")
    return name, state, f"{node.cpus:g}", f"{node.memory_gb:g} GiB", accelerators, _storage(node)


def _storage(node: Node) -> str:
    if node.storage is None:
        return "–"
    if node.storage.error:
        return "[red]failed[/]"
    took = node.storage.milliseconds
    return "  ".join(f"{took[name]:.1f}" if name in took else "–" for name in ("write", "read", "list", "delete"))


if __name__ == "__main__":
    app(prog_name="python -m cluster")
