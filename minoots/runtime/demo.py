"""A timer that shows what this is: scheduled, fired and delivered within seconds, told in the log."""

import asyncio

import structlog

from minoots.domain.json_text import read_json
from minoots.domain.timer import TimerRequest, admit
from minoots.errors import MinootsError
from minoots.service.timers import Timers

log = structlog.get_logger("minoots.demo")

TENANT = "demo"
WAIT_S = 30.0


class Demo:
    """Schedules a timer of 3 s with a webhook to a small receiver of its own, and follows it to its end."""

    def __init__(self, timers: Timers) -> None:
        self._timers = timers

    async def run(self, stop: asyncio.Event) -> None:
        """Once; ends early when `stop` is set. A demo that fails says so, and stops nothing else."""
        try:
            await self._follow(stop)
        except (MinootsError, OSError) as failed:
            log.warning("demo.failed", reason=str(failed))

    async def _follow(self, stop: asyncio.Event) -> None:
        receiver = await asyncio.start_server(self._receive, "127.0.0.1", 0)
        async with receiver:
            port = receiver.sockets[0].getsockname()[1]
            request = read_json(
                b'{"requestedBy":"minoots","name":"boot-demo","duration":"3s","labels":{"demo":"boot"},'
                b'"actionBundle":{"actions":[{"id":"hello","kind":"webhook",'
                b'"parameters":{"url":"http://127.0.0.1:%d/demo"}}]}}' % port,
                TimerRequest,
            )
            timer = await self._timers.schedule(TENANT, admit(request))
            log.info("demo.scheduled", timer_id=str(timer.id), fire_at=timer.fire_at)
            status = timer.status
            deadline = asyncio.get_running_loop().time() + WAIT_S
            while status not in ("settled", "failed", "cancelled") and not stop.is_set():
                await asyncio.sleep(0.1)
                timer = await self._timers.get(TENANT, timer.id)
                if timer.status != status:
                    status = timer.status
                    log.info(f"demo.{status}", timer_id=str(timer.id), fired_at=timer.fired_at)
                if asyncio.get_running_loop().time() > deadline:
                    log.warning("demo.unfinished", timer_id=str(timer.id), status=status)
                    return

    async def _receive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request with 200 and say that it came."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = next((int(line[15:]) for line in head.splitlines() if line.startswith("content-length:")), 0)
        await reader.readexactly(length)
        log.info("demo.webhook_received", bytes=length)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")
        await writer.drain()
        writer.close()
