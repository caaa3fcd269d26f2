"""What a program prints: its beginning is kept, the rest is read slowly and forgotten."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from typing import IO, Final, Self, cast

from minoots.orchestrator.actions.answer import EXCERPT_CHARACTERS, READ_BYTES, printable

# Past what is read of it, a program that prints without end gets a pipe's worth this often, and leaves time to others.
_SLOWLY_S: Final = 0.002


class Output(asyncio.Protocol):
    """A pipe for standard output and error together; `inlet` is the end that the program gets."""

    def __init__(self, inlet: IO[bytes]) -> None:
        self.inlet = inlet
        self._kept = bytearray()
        self._read = 0
        self._transport: asyncio.ReadTransport | None = None
        self._has_ended = asyncio.Event()

    @classmethod
    @contextlib.asynccontextmanager
    async def opened(cls) -> AsyncIterator[Self]:
        """Both ends of a new pipe; closed when the block ends, whoever still holds the other end."""
        outlet_number, inlet_number = os.pipe()
        outlet, inlet = os.fdopen(outlet_number, "rb", 0), os.fdopen(inlet_number, "wb", 0)
        made = cls(inlet)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: made, outlet)
        try:
            yield made
        finally:
            transport.close()
            inlet.close()

    def begin(self) -> None:
        """The program has its end: ours is given up, so that the pipe ends with the program."""
        self.inlet.close()

    async def until_end(self, seconds: float) -> None:
        """Until nobody can write any more, or so long: a program may have left its group with the pipe in hand."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._has_ended.wait()

    def excerpt(self) -> str | None:
        """The beginning, as it can be stored and shown."""
        return printable(bytes(self._kept))[:EXCERPT_CHARACTERS] or None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.ReadTransport, transport)

    def data_received(self, data: bytes) -> None:
        self._kept += data[: EXCERPT_CHARACTERS * 2 - len(self._kept)]
        self._read += len(data)
        if self._read > READ_BYTES and self._transport is not None:
            self._transport.pause_reading()
            asyncio.get_running_loop().call_later(_SLOWLY_S, self._go_on)

    def _go_on(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        self._has_ended.set()
