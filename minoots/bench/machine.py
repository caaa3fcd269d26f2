"""What the figures belong to: the machine and the versions."""

import os
import platform
from typing import Any

import asyncpg
import nats
import psutil

import minoots
from minoots.bench.servers import Servers


def describe_machine() -> dict[str, Any]:
    """Processors, memory, system; `load_before` is the load average as it was before the measurement."""
    return {
        "cpus": os.cpu_count(),
        "cpu": _processor(),
        "memory_gb": round(psutil.virtual_memory().total / (1 << 30), 1),
        "system": f"{platform.system()} {platform.release()}",
        "load_before": round(psutil.getloadavg()[0], 2),
    }


async def describe_versions(servers: Servers) -> dict[str, Any]:
    """Of what was measured, and how Postgres is set up where that decides."""
    connection = await asyncpg.connect(servers.url)
    try:
        settings = ("server_version", "fsync", "synchronous_commit", "shared_buffers", "max_wal_size", "jit")
        shown = {name: await connection.fetchval("select current_setting($1)", name) for name in settings}
    finally:
        await connection.close()
    client = await nats.connect(servers.nats_url)
    try:
        nats_version = str(client.connected_server_version)
    finally:
        await client.close()
    return {
        "minoots": minoots.__version__,
        "python": platform.python_version(),
        "postgres": shown.pop("server_version").split()[0],
        "nats": nats_version,
        "asyncpg": asyncpg.__version__,
        "servers": servers.kind,
        "postgres_settings": shown,
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as listed:
            names = [line.partition(":")[2].strip() for line in listed if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()
