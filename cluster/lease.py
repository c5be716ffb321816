"""Leases: who makes an artifact now, so that two drivers on one root share the work instead of doing it twice.

Below an artifact that is being made stand ``lease/00001.json``, ``lease/00002.json``, …; the last one counts. It names
the driver that made it, which writes it again every few seconds with a higher count of *beats*. Who finds the last
lease given back, or without a new beat for ``BABELRAY_LEASE_S`` seconds of its own clock (no two machines' clocks are
compared), creates the next file. Creating succeeds for one of several drivers, on a disk and in an object store alike,
so no two take over at once; and the old driver, should it still live, finds a newer lease than its own and stops.

The lease of a process of this machine that is gone is free at once. A lease keeps work from being done twice; that a
complete artifact never changes does not depend on it: a manifest is created only where there is none, and a part is
not written below one (``Fence``).
"""

import getpass
import json
import logging
import os
import platform
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from cluster.artifact import MANIFEST
from cluster.errors import LeaseLostError, StorageError
from cluster.receipt import READERS
from cluster.storage import Place

log = logging.getLogger("babelray")
LEASES = "lease"
DEFAULT_LEASE_S = 60.0
BEATS_PER_LEASE = 6
FILE_BYTES = 1024  # of a lease


class Holder(BaseModel):
    """Who makes an artifact, as the lease's file says it."""

    model_config = ConfigDict(frozen=True)
    host: str
    pid: int
    process: str
    user: str
    since: datetime
    token: str
    beats: int = 0
    is_released: bool = False

    @staticmethod
    def of_this_process() -> "Holder":
        """A new holder that is this process."""
        return Holder(
            host=platform.node(),
            pid=os.getpid(),
            process=identify_process(os.getpid()),
            user=_user(),
            since=datetime.now().astimezone(),
            token=uuid.uuid4().hex,
        )

    def __str__(self) -> str:
        """``made by HOST (pid 12, user ann) since 12:03``."""
        since = self.since.astimezone()
        day = "" if since.date() == datetime.now().date() else f"{since:%Y-%m-%d} "
        return f"made by {self.host} (pid {self.pid}, user {self.user}) since {day}{since:%H:%M}"

    @property
    def is_gone(self) -> bool:
        """Whether the process ran on this machine and has ended. Of other machines' processes this is not known."""
        here = identify_process(os.getpid()).rpartition("/")[0]
        machine = self.process.rpartition("/")[0]
        return bool(machine) and machine == here and identify_process(self.pid) != self.process


@dataclass(frozen=True)
class Fence:
    """The right to write below an artifact, as it travels to the actors that do: they check it before each part."""

    artifact: Place
    number: int

    def check(self) -> None:
        """Raise LeaseLostError when the artifact is complete or another driver has taken it over."""
        if (self.artifact / MANIFEST).exists():
            raise LeaseLostError(f"{self.artifact.redacted} was completed by another driver")
        if lease_place(self.artifact, self.number + 1).exists():
            raise LeaseLostError(f"{self.artifact.redacted} was taken over by another driver")


@dataclass
class Lease:
    """A lease that this process holds: of which artifact, and the number and content of its file. ``lock`` is taken to
    write the file."""

    artifact: Place
    number: int
    holder: Holder
    is_lost: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def fence(self) -> Fence:
        """What actors ask before they write."""
        return Fence(self.artifact, self.number)


@dataclass
class _Sighting:
    """The newest lease of an artifact as another driver left it, and when this process first saw it so."""

    token: str
    beats: int
    since: float = field(default_factory=time.monotonic)


class Leases:
    """The leases of one run. One thread keeps them alive from the first ``take`` to ``close``."""

    def __init__(self) -> None:
        self.seconds = float(os.environ.get("BABELRAY_LEASE_S") or DEFAULT_LEASE_S)
        self._held: dict[Place, Lease] = {}
        self._seen: dict[Place, _Sighting] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._keeper: threading.Thread | None = None

    def take(self, artifact: Place) -> "Lease | Holder":
        """Take the lease of an artifact, or return the driver that has it. Who has taken it looks whether the artifact
        is there by now: the driver before may have completed it in between."""
        number, holder = newest(artifact)
        if holder and not self._is_free(artifact, holder):
            return holder
        mine = Holder.of_this_process()
        if not lease_place(artifact, number + 1).create(_encode(mine)):
            _, holder = newest(artifact)
            if holder is None:  # the artifact was completed in this moment, and its leases removed
                return self.take(artifact)
            if holder.token != mine.token:  # else it is ours, and the answer was lost on the way
                return holder
        lease = Lease(artifact, number + 1, mine)
        with self._lock:
            self._held[artifact] = lease
            if self._keeper is None:
                self._keeper = threading.Thread(target=self._keep, daemon=True, name="leases")
                self._keeper.start()
        return lease

    def is_free(self, artifact: Place) -> bool:
        """Whether nobody makes this artifact: another driver's lease was given back, or has run out."""
        _, holder = newest(artifact)
        return holder is None or self._is_free(artifact, holder)

    def drop(self, lease: Lease) -> None:
        """Forget a lease whose artifact is complete, and remove its files."""
        with lease.lock:
            self._held.pop(lease.artifact, None)
        (lease.artifact / LEASES).delete()

    def give_back(self, lease: Lease) -> None:
        """Let another driver go on at once."""
        with lease.lock:
            if self._held.pop(lease.artifact, None) is None or lease.is_lost:
                return
            released = lease.holder.model_copy(update={"is_released": True})
            lease_place(lease.artifact, lease.number).write(_encode(released))

    def close(self) -> None:
        """Give back all that is held."""
        self._closing.set()
        for lease in list(self._held.values()):
            self.give_back(lease)

    def _is_free(self, artifact: Place, holder: Holder) -> bool:
        if holder.is_released or holder.is_gone:
            return True
        seen = self._seen.get(artifact)
        if seen is None or (seen.token, seen.beats) != (holder.token, holder.beats):
            self._seen[artifact] = _Sighting(holder.token, holder.beats)
            return False
        return time.monotonic() - seen.since > self.seconds

    def _keep(self) -> None:
        with ThreadPoolExecutor(READERS) as threads:  # a wave may hold thousands
            while not self._closing.wait(self.seconds / BEATS_PER_LEASE):
                list(threads.map(self._beat, list(self._held.values())))

    def _beat(self, lease: Lease) -> None:
        """Show that this process lives, or find that another driver has taken over."""
        try:
            if lease_place(lease.artifact, lease.number + 1).exists():
                lease.is_lost = True
                self._held.pop(lease.artifact, None)
                return
            with lease.lock:
                if lease.artifact in self._held:
                    lease.holder = lease.holder.model_copy(update={"beats": lease.holder.beats + 1})
                    lease_place(lease.artifact, lease.number).write(_encode(lease.holder))
        except StorageError as error:  # lost only when somebody has taken it, which a later beat will find
            log.warning("cannot renew the lease of %s: %s", lease.artifact.redacted, error)


def lease_place(artifact: Place, number: int) -> Place:
    """Where an artifact's n-th lease stands."""
    return artifact / LEASES / f"{number:05d}.json"


def newest(artifact: Place) -> tuple[int, Holder | None]:
    """The number of an artifact's last lease and who has it; 0 and None where nobody ever had one."""
    files = [place for place in (artifact / LEASES).list() if place.name.endswith(".json")]
    if not files:
        return 0, None
    last = max(files, key=lambda place: place.name)
    try:
        return int(last.name.removesuffix(".json")), Holder.model_validate_json(last.read())
    except StorageError:
        if last.exists():
            raise
        return 0, None  # the artifact was completed, and its leases removed, in this moment


def identify_process(pid: int) -> str:
    """A name of a process that no other ever has: ``boot/pid namespace/pid/start``. Empty where it cannot be known:
    the process has ended, or this is not Linux."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        state, start = fields[0], fields[19]
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
    return "" if state == "Z" else f"{boot}/{namespace}/{pid}:{start}"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return str(os.getuid())


def _encode(holder: Holder) -> bytes:
    """The file's content, always of the same length. A reader in an object store asks for the length first: one more
    digit of ``beats``, written in between, would leave it with a part of the content."""
    return json.dumps(holder.model_dump(mode="json")).encode().ljust(FILE_BYTES)
