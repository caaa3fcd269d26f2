"""The barest doors there can be, as processes: one handler, one insert through asyncpg; what the real ones are beside.

`rest` is a Litestar handler under granian with the real door's settings, `grpc` a grpc.aio handler with the real
door's messages. They check nothing, know no tenants and announce nothing.
"""

import asyncio
import json
import os
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import grpc.aio
import uvloop
from litestar import Litestar, post

from minoots.rest.server import serve_rest
from minoots.rpc.pb import timer_pb2
from minoots.rpc.servicer import SERVICE
from minoots.settings import Address, Settings

TABLE = """
create table minoots.bare_timers (
    id uuid primary key default minoots.uuid7(), tenant_id text not null, fire_at timestamptz not null,
    body json not null)
"""
INSERT = "insert into minoots.bare_timers (tenant_id, fire_at, body) values ($1, $2, $3) returning id"
_WAIT = timedelta(hours=1)


async def _serve_rest(pool: "asyncpg.Pool[asyncpg.Record]", insert: str, port: int, stop: asyncio.Event) -> None:
    @post("/timers")
    async def create(data: dict[str, Any]) -> dict[str, Any]:
        timer = await pool.fetchval(insert, data["tenantId"], datetime.now(UTC) + _WAIT, json.dumps(data))
        return {"id": str(timer), **data}

    app = Litestar([create], openapi_config=None, logging_config=None)
    await serve_rest(app, Address("127.0.0.1", port), stop)


async def _serve_grpc(pool: "asyncpg.Pool[asyncpg.Record]", insert: str, port: int, stop: asyncio.Event) -> None:
    async def schedule(request: timer_pb2.TimerScheduleRequest, _: Any) -> timer_pb2.TimerScheduleResponse:
        body = json.dumps({"name": request.name, "labels": dict(request.labels)})
        timer = await pool.fetchval(insert, request.tenant_id, datetime.now(UTC) + _WAIT, body)
        return timer_pb2.TimerScheduleResponse(timer=timer_pb2.Timer(id=str(timer), tenant_id=request.tenant_id))

    method = grpc.unary_unary_rpc_method_handler(
        schedule,
        request_deserializer=timer_pb2.TimerScheduleRequest.FromString,
        response_serializer=timer_pb2.TimerScheduleResponse.SerializeToString,
    )
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"ScheduleTimer": method}),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await stop.wait()
    await server.stop(1)


async def _serve(door: str, port: int) -> None:
    settings = Settings.from_env(os.environ)
    stop = asyncio.Event()
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    insert = INSERT.replace("minoots.", f'"{settings.store.schema}".')
    async with asyncpg.create_pool(settings.store.url, min_size=1, max_size=settings.store.pool_size) as pool:
        serving = asyncio.create_task((_serve_rest if door == "rest" else _serve_grpc)(pool, insert, port, stop))
        sys.stdout.write('"ready"\n')
        sys.stdout.flush()
        await reader.read()
        stop.set()
        await serving


if __name__ == "__main__":
    uvloop.run(_serve(sys.argv[1], int(sys.argv[2])))
