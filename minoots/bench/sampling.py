"""What processes cost: CPU seconds and peak memory between two moments, sampled twice a second."""

import contextlib
import threading
from dataclasses import dataclass, field

import psutil

EVERY_S = 0.5
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Usage:
    """`peak_mb` is in MiB; of a family of processes the memory that they share is counted once."""

    cpu_s: float
    peak_mb: float


@dataclass(slots=True)
class _Watched:
    root: psutil.Process
    has_children: bool
    before_s: float = 0.0
    last_s: float = 0.0
    peak: float = 0.0
    children: list[psutil.Process] = field(default_factory=list)


class Sampler:
    """Use as a context manager around what is measured; `usage` tells afterwards."""

    def __init__(self) -> None:
        self._watched: dict[str, _Watched] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)
        self._lock = threading.Lock()

    def watch(self, name: str, pid: int | None, family: bool = False) -> None:
        """From now on; `family` takes the children of the process too. None is a process that is not here."""
        if pid is None:
            return
        with contextlib.suppress(psutil.NoSuchProcess), self._lock:
            watched = _Watched(psutil.Process(pid), family)
            self._look(watched)
            watched.before_s = watched.last_s
            self._watched[name] = watched

    def __enter__(self) -> "Sampler":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._look_at_all()

    @property
    def usage(self) -> dict[str, Usage]:
        return {
            name: Usage(round(w.last_s - w.before_s, 3), round(w.peak / _MIB, 1)) for name, w in self._watched.items()
        }

    def _run(self) -> None:
        while not self._ended.wait(EVERY_S):
            self._look_at_all()

    def _look_at_all(self) -> None:
        with self._lock:
            for watched in self._watched.values():
                # A process that was killed keeps what was seen of it last.
                with contextlib.suppress(psutil.NoSuchProcess):
                    self._look(watched)

    def _look(self, watched: _Watched) -> None:
        if not watched.has_children:
            times, memory = watched.root.cpu_times(), watched.root.memory_info()
            watched.last_s = times.user + times.system
            watched.peak = max(watched.peak, memory.rss)
            return
        # What has ended and was waited for is in its parent's account of children.
        times = watched.root.cpu_times()
        total = times.user + times.system + times.children_user + times.children_system
        own, shared = 0.0, 0.0
        for process in [watched.root, *watched.root.children()]:
            with contextlib.suppress(psutil.NoSuchProcess):
                memory = process.memory_info()
                part = getattr(memory, "shared", 0)
                own, shared = own + memory.rss - part, max(shared, part)
                if process.pid != watched.root.pid:
                    mine = process.cpu_times()
                    total += mine.user + mine.system
        # A child that ended between the two looks is counted at the next.
        watched.last_s = max(watched.last_s, total)
        watched.peak = max(watched.peak, own + shared)
