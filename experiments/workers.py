"""A comparison on several GPUs or machines: Ray keeps one process with a model for each worker, and any of them may die.

The driver, which is the process that was started, hands out groups of cells by number and alone writes to the folder. Every
worker makes the same cells of the same plain request, and is let in only if their keys are those of the driver.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import textwrap
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from importlib.util import find_spec
from threading import current_thread, main_thread
from typing import Any, Final, NamedTuple

import torch

from ..models.base import Setup
from .bench import LONGEST_REASON, Bench, Edited, Inside, in_a_line
from .cells import Group
from .environment import device_name
from .fingerprint import hash_metrics
from .folder import RunFolder
from .records import Finished
from .run import Effort, Tally, Watch, finished, keep_originals

PATIENCE: Final = 30.0
"""Seconds without any worker at work, after which it is said."""
ATTEMPTS: Final = 3
"""Workers in a row that may die before they begin."""
DEATHS: Final = 2
"""Workers that may die over one group before it is given up."""
OBJECT_STORE: Final = 512 * 2**20
"""Bytes that Ray may keep pictures in on their way to the driver, where it is started here."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """What is to be done, in groups that are known by their number, and where it can be done."""

    bench: Bench
    groups: Sequence[Group]
    device: str

    @property
    def identity(self) -> str:
        """A hash of all cells' keys in their order, and of the metrics."""
        keys = (cell.key for group in self.groups for cell in group.cells)
        return sha256("".join([hash_metrics(self.bench.metrics), *keys]).encode()).hexdigest()[:16]


class Greeting(NamedTuple):
    """What a worker says when it is ready: which job it has, and on what it computes."""

    identity: str
    device: str


class Worker:
    """What lives in a process of its own: one model, at work on the groups that it is told."""

    def begin(self, job: Callable[[], Job], place: str, threads: int) -> Greeting:
        """Get ready. place: the folder that relative paths start from, if it is there. threads: of torch (0: as Ray says)."""
        with suppress(OSError):
            os.chdir(place)
        if threads:
            torch.set_num_threads(threads)
        self._job = job()
        return Greeting(self._job.identity, device_name(self._job.device))

    def work(self, number: int) -> tuple[list[Finished], Inside]:
        """What becomes of a group, and where the time went; pictures are in 8 bits, as they will be written."""
        bench = self._job.bench
        before = bench.inside
        done = bench.finish(bench.edit(self._job.groups[number]))
        sent = [Finished(record, None if picture is None else to_bytes(picture)) for record, picture in done]
        return sent, bench.inside.since(before)


def to_bytes(picture: torch.Tensor) -> torch.Tensor:
    """(3, H, W) in [0, 1] rounded to uint8, in a quarter of the room."""
    return (picture.detach().float().cpu().clamp(0.0, 1.0) * 255.0).round().to(torch.uint8)


def check_workers(effort: Effort, setup: Setup) -> None:
    """Find out before any work whether workers can be had. Raises ValueError (one sentence) if not."""
    if not effort.workers:
        return
    if find_spec("ray") is None:
        raise ValueError("workers need Ray, which is not installed; run: pip install 'fe-toolkit[ray]'")
    if ":" in setup.device:
        raise ValueError(f"every worker gets a GPU from Ray, so {setup.device!r} cannot be asked for; use --device cuda")
    on_gpu = setup.device == "cuda" or (setup.device == "auto" and torch.cuda.is_available())
    if on_gpu and (setup.quantise != "none" or setup.weights == "random"):
        raise ValueError(
            "rounded and random weights are made on the GPU, so that workers cannot be held to them from here; "
            "use --shard on each GPU in place of --workers"
        )
    address = effort.address
    if address and address != "auto":
        _check_address(address)


def _check_address(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        raise ValueError(f"{address!r} is no address of Ray; write HOST:PORT of its head, or auto for the one on this machine")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError) as fault:
        raise ValueError(f"nothing answers at {address} ({fault}); start Ray there first: ray start --head") from None


def run_on_workers(
    job: Job,
    elsewhere: Callable[[], Job],
    folder: RunFolder,
    watch: Watch,
    effort: Effort,
    session: Mapping[str, Any],
) -> None:
    """Like `run.run`, with `effort.workers` processes at work at once. elsewhere: makes the same job there.

    A group over which two workers died is recorded as failed. Raises ValueError if no worker can be had, or if one would
    compute something else; OSError if the folder cannot be written.
    """
    started = time.perf_counter()
    cells = [cell for group in job.groups for cell in group.cells]
    held = finished(cells, folder, effort)
    tally = Tally(watch, len(cells))
    tally.add(held.values())
    todo = [number for number, group in enumerate(job.groups) if any(cell.key not in held for cell in group.cells)]
    if not todo:
        return
    with _ray(effort, job.device):
        crew = _Crew(job, partial(_hired, elsewhere, job.device, effort), effort.workers, deque(todo))
        folder.begin({**session, "device": crew.ready()})
        for number, results in crew.results():
            if effort.pictures:
                keep_originals(folder, job.groups[number].cases)
            kept = [from_bytes(one) for one in results if one.record.key not in held]
            folder.keep(kept)
            tally.add(record for record, _ in kept)
        folder.end({"seconds": crew.inside.of(time.perf_counter() - started, effort.workers)})


@dataclass(eq=False)
class _Hand:
    """A worker as the driver sees it. `begun`: its greeting to come; `tasks`: what it has been told to do and has not done yet,
    in this order, each with the group's number."""

    actor: Any
    begun: Any
    up: bool = False
    tasks: deque[tuple[Any, int]] = field(default_factory=deque)

    @property
    def awaited(self) -> Any:
        """What it is to answer next; None where nothing."""
        if not self.up:
            return self.begun
        return self.tasks[0][0] if self.tasks else None

    def tell(self, number: int) -> None:
        self.tasks.append((self.actor.work.remote(number), number))


@dataclass
class _Crew:
    """The workers of a run: who is at work on what, who has died, what is left to do, and where the time of all went."""

    job: Job
    hire: Callable[[], _Hand]
    size: int
    todo: deque[int]
    device: str = ""
    hands: list[_Hand] = field(default_factory=list)
    deaths: Counter[int] = field(default_factory=Counter)
    stillborn: int = 0
    inside: Inside = field(default_factory=Inside)

    def ready(self) -> str:
        """Wait for the first worker; on what it computes. Raises ValueError if none can be had."""
        while not self.device:
            for _ in self._turn():
                pass
        return self.device

    def results(self) -> Iterator[tuple[int, Sequence[Finished]]]:
        """The groups' numbers with what became of them, as they are done. Raises ValueError if no worker is left."""
        while self.todo or any(hand.tasks for hand in self.hands):
            yield from self._turn()

    def _turn(self) -> Iterator[tuple[int, Sequence[Finished]]]:
        """See that there are workers with something to do, and take what the next one answers."""
        import ray

        self._fill()
        awaited = {hand.awaited: hand for hand in self.hands if hand.awaited is not None}
        answered, _ = ray.wait(list(awaited), num_returns=1, timeout=PATIENCE)
        if not answered and not any(hand.up for hand in self.hands):
            _still_waiting(self.job.device)
        for one in answered:
            yield from self._taken(awaited[one])

    def _fill(self) -> None:
        """Hire as many as are of use, and give each something to do; while there is plenty, also something to go on with."""
        left = len(self.todo) + sum(len(hand.tasks) for hand in self.hands)
        while len(self.hands) < min(self.size, left) and self.stillborn < ATTEMPTS:
            self.hands.append(self.hire())
        for depth in (1, 2):
            for hand in self.hands:
                if hand.up and len(hand.tasks) < depth and len(self.todo) > (depth - 1) * len(self.hands):
                    hand.tell(self.todo.popleft())

    def _taken(self, hand: _Hand) -> Iterator[tuple[int, Sequence[Finished]]]:
        import ray
        from ray.exceptions import RayError

        try:
            answer = ray.get(hand.awaited)
        except RayError as fault:
            yield from self._lost(hand, fault)
        else:
            if hand.up:
                results, inside = answer
                self.inside = self.inside.plus(inside)
                yield hand.tasks.popleft()[1], results
            else:
                self._greeted(hand, answer)

    def _greeted(self, hand: _Hand, greeting: Greeting) -> None:
        if greeting.identity != self.job.identity:
            raise ValueError(
                "a worker would compute other cells than these: its fe, its plug-ins, its weights or its pictures are not "
                "those that are here; bring all machines to the same state"
            )
        hand.up, self.stillborn, self.device = True, 0, greeting.device

    def _lost(self, hand: _Hand, fault: Exception) -> Iterator[tuple[int, Sequence[Finished]]]:
        """What it had to do goes to others, last of all what it died over, which is given up the second time."""
        import ray
        from ray.exceptions import RayTaskError

        self.hands.remove(hand)
        ray.kill(hand.actor)  # it may be alive, and in no state to go on
        if not hand.up:
            self.stillborn = ATTEMPTS if isinstance(fault, RayTaskError) else self.stillborn + 1
            if self.stillborn >= ATTEMPTS and not self.hands:
                raise ValueError(f"no worker could begin; the last: {_reason(fault)}")
            return
        self.stillborn = 0  # its place can be taken, whatever kept another one from beginning
        if not hand.tasks:
            return
        _, suspect = hand.tasks.popleft()
        self.todo.extendleft(number for _, number in reversed(hand.tasks))
        self.deaths[suspect] += 1
        if self.deaths[suspect] < DEATHS:
            self.todo.append(suspect)
            return
        reason = f"the worker died twice, the last time so: {_reason(fault)}"
        yield suspect, self.job.bench.finish([Edited(self.job.groups[suspect].cells, reason)])


def from_bytes(one: Finished) -> Finished:
    """The same with the picture in [0, 1] again; written, it is the same file."""
    return one if one.picture is None else one._replace(picture=one.picture.float() / 255.0)


def _reason(fault: Exception) -> str:
    """Why a worker is lost, in a line: of a process that ended how it did, without Ray's numbers and advice, so that what
    happened twice is said twice in the same words."""
    from ray.exceptions import RayTaskError

    if isinstance(fault, RayTaskError):
        return in_a_line(fault.cause)
    said = " ".join(str(fault).split())
    found = re.search(r"Worker exit detail: (.+?)(?= Some common causes| There are some potential|$)", said)
    return textwrap.shorten(found[1] if found else said, LONGEST_REASON, placeholder=" ...")


def _hired(job: Callable[[], Job], device: str, effort: Effort) -> _Hand:
    import ray

    kind = ray.remote(num_cpus=1, num_gpus=int(device == "cuda"), max_restarts=0)(Worker)
    threads = 0 if effort.address else max(1, torch.get_num_threads() // effort.workers)
    actor = kind.remote()
    return _Hand(actor, actor.begin.remote(job, os.getcwd(), threads))


def _still_waiting(device: str) -> None:
    """Say that nobody is at work yet. Raises ValueError if nobody ever will be."""
    import ray

    what = _check_room(1, device)
    total, free = (found.get(what, 0) for found in (ray.cluster_resources(), ray.available_resources()))
    warnings.warn(
        f"still no worker at work: the model takes its time to load, or Ray has no {what} free ({free:g} of {total:g} are)",
        stacklevel=2,
    )


def _check_room(workers: int, device: str) -> str:
    """What a worker needs one of: "GPU" or "CPU". Raises ValueError if Ray has less than enough, all in all."""
    import ray

    what = "GPU" if device == "cuda" else "CPU"
    there = int(ray.cluster_resources().get(what, 0))
    if there < workers:
        instead = f"use --workers {there}" if there else "use --device cpu, or --ray-address where there are some"
        raise ValueError(f"every worker needs a {what} and Ray has {there} for {workers}; {instead}")
    return what


@contextmanager
def _ray(effort: Effort, device: str) -> Iterator[None]:
    """Ray inside the `with` block: that at the address, one that runs in this process already, or one of our own. It is quiet,
    unless our own log is at INFO. Raises ValueError if it cannot be had, or has no room for that many workers."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_worker_niceness", "0")  # workers have as much right to the machine as this process
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else a page of advice on the screen
    import ray

    loud = _log.isEnabledFor(logging.INFO)
    ours = not ray.is_initialized()
    where: Mapping[str, Any] = (
        {"address": effort.address}
        if effort.address
        else {"address": "local", "num_cpus": effort.workers, "include_dashboard": False, "object_store_memory": OBJECT_STORE}
    )
    ended = signal.getsignal(signal.SIGTERM)
    if ours:
        try:
            ray.init(log_to_driver=loud, logging_level=logging.INFO if loud else logging.CRITICAL, **where)
        except ConnectionError:
            raise ValueError("no Ray is found on this machine; start one first: ray start --head") from None
        except (OSError, RuntimeError, ValueError) as fault:  # such as two versions that do not agree
            raise ValueError(f"Ray cannot be had: {' '.join(str(fault).split())}") from fault
        if ended is not None and current_thread() is main_thread():
            signal.signal(signal.SIGTERM, ended)  # Ray has put an answer of its own in its place
    try:
        _check_room(effort.workers, device)
        yield
    finally:
        if ours:
            ray.shutdown()
