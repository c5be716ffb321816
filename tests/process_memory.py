"""The memory of a process and of all that descend from it."""

from pathlib import Path


def find_memory(ancestor: int) -> dict[str, float]:
    """The proportional set size of each process, in GiB, by its id and command: a page that n processes share counts
    1/n in each."""
    parents, sizes, commands = {}, {}, {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parents[process.name] = _read_fields(process / "status")["PPid"]
            sizes[process.name] = int(_read_fields(process / "smaps_rollup")["Pss"].split()[0]) / 2**20
            commands[process.name] = (process / "cmdline").read_text(errors="replace").replace("\0", " ").strip()
        except (OSError, KeyError):  # it ended between the looks, or is one of the kernel's
            continue

    def descends(pid: str) -> bool:
        while pid not in ("0", str(ancestor)):
            pid = parents.get(pid, "0")
        return pid == str(ancestor)

    return {f"{pid} {commands[pid]}": size for pid, size in sizes.items() if pid in commands and descends(pid)}


def _read_fields(file: Path) -> dict[str, str]:
    """The lines ``name: value`` of a file of /proc."""
    lines = (line.partition(":") for line in file.read_text().splitlines())
    return {name: value.strip() for name, _, value in lines}
