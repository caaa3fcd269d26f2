"""A bar on a terminal, on standard error, so that standard output stays the result; elsewhere nothing."""

import sys
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


class Bar:
    """One step at a time: `step` begins it, `at` says how far it is."""

    def __init__(self) -> None:
        columns = (TextColumn("{task.description:<44}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bar = Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True)
        self._step: TaskID | None = None

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def step(self, what: str, of: int | None = None) -> None:
        """The step before has ended; `of` None is a step of unknown length."""
        if self._step is not None:
            self._bar.remove_task(self._step)
        self._step = self._bar.add_task(what, total=of)

    def at(self, done: int) -> None:
        if self._step is not None:
            self._bar.update(self._step, completed=done)
