"""One face for REST, gRPC and SQL: what a door is asked, and what it shows, in the words of REST."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

KEY = "mnt_example"
Timer = dict[str, Any]


@dataclass
class Refused(Exception):
    """A door's no: `kind` is the same word at every door; `pointers` are None where the door has none."""

    kind: str
    detail: str
    pointers: tuple[str, ...] | None = None


class Door(ABC):
    """What can be done with timers. `duration` forms are this door's own; all else is asked as in REST."""

    name: ClassVar[str]
    # The same minute and a half, in each way that this door has of writing it.
    ninety_seconds: ClassVar[tuple[Any, ...]]
    # What this door cannot even be asked: it has types of its own for it.
    knows_no: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    async def create(self, tenant: str, fields: Mapping[str, Any], key: str | None = None) -> Timer: ...

    @abstractmethod
    async def get(self, tenant: str, timer_id: str) -> Timer: ...

    @abstractmethod
    async def list_page(
        self, tenant: str, wanted: Mapping[str, Any], limit: int, cursor: str | None
    ) -> tuple[list[Timer], str | None]: ...

    @abstractmethod
    async def cancel(self, tenant: str, timer_id: str, requested_by: str, reason: str | None = None) -> Timer: ...

    @abstractmethod
    async def pause(self, tenant: str, timer_id: str, requested_by: str | None = None) -> Timer: ...

    @abstractmethod
    async def resume(
        self, tenant: str, timer_id: str, catch_up: bool | None = None, requested_by: str | None = None
    ) -> Timer: ...

    @abstractmethod
    async def reschedule(self, tenant: str, timer_id: str, fields: Mapping[str, Any]) -> Timer: ...

    @abstractmethod
    async def fire(self, tenant: str, timer_id: str, requested_by: str | None = None) -> Timer: ...

    @abstractmethod
    async def update(
        self, tenant: str, timer_id: str, fields: Mapping[str, Any], if_version: int | None = None
    ) -> Timer: ...

    @abstractmethod
    async def put(
        self, tenant: str, name: str, fields: Mapping[str, Any], if_version: int | None = None
    ) -> tuple[Timer, bool]:
        """The timer, and whether it was created."""

    @abstractmethod
    async def preview(self, tenant: str, fields: Mapping[str, Any]) -> list[dict[str, Any]]: ...

    @abstractmethod
    async def firings(self, tenant: str, timer_id: str) -> list[dict[str, Any]]: ...

    @abstractmethod
    async def firing(self, tenant: str, timer_id: str, occurrence: int) -> dict[str, Any]: ...

    async def dead_letters(
        self, tenant: str, wanted: Mapping[str, Any], limit: int = 50, cursor: str | None = None
    ) -> tuple[list[dict[str, Any]], str | None]:
        """What gave up, the newest first. SQL has its view for this, and opens nothing again."""
        raise NotImplementedError

    async def redrive(self, tenant: str, asked: Mapping[str, Any]) -> dict[str, int]:
        """How many were meant, and how many were opened."""
        raise NotImplementedError

    async def list_all(self, tenant: str, wanted: Mapping[str, Any], limit: int = 2) -> list[Timer]:
        """Page by page."""
        found, cursor = await self.list_page(tenant, wanted, limit, None)
        while cursor:
            more, cursor = await self.list_page(tenant, wanted, limit, cursor)
            assert len(more) <= limit
            found += more
        return found
