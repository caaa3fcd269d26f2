"""A receiver that misbehaves on purpose: real sockets, in a process of its own, one scene a path.

`python -m tests.support.scripted_receiver` prints its ports as a line of JSON and plays until standard input ends.
"""

import asyncio
import contextlib
import datetime
import gzip
import hashlib
import ipaddress
import json
import socket
import ssl
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self
from urllib.request import urlopen

ROOT = Path(__file__).resolve().parents[2]
GIB = 1 << 30
BLOCK = bytes(1 << 16)

Writer = asyncio.StreamWriter


@dataclass(frozen=True, slots=True)
class Heard:
    """One request as it came; `nth` counts those of one webhook-id."""

    path: str
    webhook_id: str
    nth: int
    body: str  # its SHA-256
    host: str
    at: float


class Receiver:
    """The scenes. Each gets the writer and what it heard, and says no more than its name."""

    def __init__(self) -> None:
        self.heard: list[Heard] = []
        self.canary = 0
        self.sent = 0
        self._seen: Counter[str] = Counter()
        self.ports: dict[str, int] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: Writer) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError, TimeoutError):
            while request := await self._read(reader):
                path = request.path.split("?")[0].strip("/").split("/")
                if not await self._scenes()[path[0]](writer, request):
                    break
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> Heard | None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        except asyncio.IncompleteReadError:
            return None
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        body = await reader.readexactly(int(fields.get("content-length", 0)))
        path, webhook_id = head[0].split(" ")[1], fields.get("webhook-id", "")
        self._seen[webhook_id] += 1
        at = asyncio.get_running_loop().time()
        digest = hashlib.sha256(body).hexdigest()
        found = Heard(path, webhook_id, self._seen[webhook_id], digest, fields.get("host", ""), at)
        if path != "/log":
            self.heard.append(found)
        return found

    def _scenes(self) -> dict[str, Callable[[Writer, Heard], Awaitable[bool]]]:
        return {name.removeprefix("play_"): getattr(self, name) for name in dir(self) if name.startswith("play_")}

    async def _answer(self, writer: Writer, status: int, body: bytes = b"", **fields: str) -> bool:
        head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
        writer.write(f"HTTP/1.1 {status} Scripted\r\ncontent-length: {len(body)}\r\n{head}\r\n".encode() + body)
        await writer.drain()
        return True

    async def play_log(self, writer: Writer, _: Heard) -> bool:
        said = {"heard": [asdict(one) for one in self.heard], "canary": self.canary, "sent": self.sent}
        return await self._answer(writer, 200, json.dumps(said).encode(), connection="close") and False

    async def play_status(self, writer: Writer, heard: Heard) -> bool:
        """`/status/410`; of several, `/status/503,200`, one after the other."""
        statuses = heard.path.rsplit("/", 1)[1].split(",")
        return await self._answer(writer, int(statuses[min(heard.nth, len(statuses)) - 1]), b"as the script says")

    async def play_limited(self, writer: Writer, heard: Heard) -> bool:
        """`/limited/2`: too many, come back in two seconds."""
        if heard.nth > 1:
            return await self._answer(writer, 200)
        return await self._answer(writer, 429, Retry_After=heard.path.rsplit("/", 1)[1])

    async def play_away(self, writer: Writer, _: Heard) -> bool:
        return await self._answer(writer, 301, Location=f"http://127.0.0.1:{self.ports['canary']}/secret")

    async def play_lost(self, writer: Writer, heard: Heard) -> bool:
        """Takes it, and loses its answer the first time."""
        return heard.nth > 1 and await self._answer(writer, 200)

    async def play_cut(self, writer: Writer, _: Heard) -> bool:
        """Ends in the middle of its answer."""
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nonly this")
        await writer.drain()
        return False

    async def play_huge(self, writer: Writer, heard: Heard) -> bool:
        """`/huge/200`: 1 GiB, or as much of it as somebody takes."""
        status = heard.path.rsplit("/", 1)[1]
        writer.write(f"HTTP/1.1 {status} Huge\r\ncontent-length: {GIB}\r\n\r\n".encode())
        for _ in range(GIB // len(BLOCK)):
            writer.write(BLOCK)
            await self._flush(writer, len(BLOCK))
        return False

    async def play_bomb(self, writer: Writer, _: Heard) -> bool:
        """1 GiB of nothing, packed into 1 MiB: 64 members of a gzip file (RFC 1952, section 2.2)."""
        packed = gzip.compress(bytes(GIB // 64)) * 64
        return await self._answer(writer, 200, packed, content_encoding="gzip") and False

    async def play_drip(self, writer: Writer, _: Heard) -> bool:
        """A byte now and then, for ever."""
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
        return await self._drip(writer, b"x")

    async def play_drip_head(self, writer: Writer, _: Heard) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\nx-slow: ")
        return await self._drip(writer, b"y")

    async def _flush(self, writer: Writer, many: int) -> None:
        """Others have a turn, even when somebody takes everything at once."""
        await writer.drain()
        await asyncio.sleep(0)
        self.sent += many

    async def _drip(self, writer: Writer, byte: bytes) -> bool:
        while True:
            writer.write(byte)
            await writer.drain()
            await asyncio.sleep(0.05)

    async def play_giant_head(self, writer: Writer, _: Heard) -> bool:
        """Header fields without end."""
        writer.write(b"HTTP/1.1 200 OK\r\n")
        for nth in range(GIB // 1024):
            writer.write(b"x-%d: " % nth + b"z" * 1000 + b"\r\n")
            await self._flush(writer, 1000)
        return False

    async def play_giant_line(self, writer: Writer, _: Heard) -> bool:
        """One header field without end."""
        writer.write(b"HTTP/1.1 200 OK\r\nx-long: ")
        for _ in range(GIB // len(BLOCK)):
            writer.write(b"z" * len(BLOCK))
            await self._flush(writer, len(BLOCK))
        return False

    async def play_continues(self, writer: Writer, _: Heard) -> bool:
        """Interim answers without end, and never one."""
        while True:
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)
            await writer.drain()
            await asyncio.sleep(0.01)

    async def play_silent(self, writer: Writer, _: Heard) -> bool:
        """Takes it, and is never heard of again."""
        await asyncio.sleep(3600)
        return False

    async def play_garbage(self, writer: Writer, _: Heard) -> bool:
        writer.write(b"\x00\xff\x1b[31m220 mail.example.com ESMTP\r\n\r\n")
        await writer.drain()
        return False

    async def play_directive(self, writer: Writer, heard: Heard) -> bool:
        """`/directive/{"minoots":…}`, percent-encoded, as the answer."""
        from urllib.parse import unquote

        return await self._answer(writer, 200, unquote(heard.path.split("/", 2)[2]).encode())


def certificate(folder: Path) -> ssl.SSLContext:
    """For this host, but by nobody that anybody trusts."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "scripted")])
    now = datetime.datetime.now(datetime.UTC)
    until = now + datetime.timedelta(days=1)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, until)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = folder / "scripted.pem"
    no_password = serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, no_password)
    file.write_bytes(pem + made.public_bytes(serialization.Encoding.PEM))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(file)
    return context


async def _play() -> None:
    receiver = Receiver()

    async def sing(_: asyncio.StreamReader, writer: Writer) -> None:
        receiver.canary += 1
        writer.close()

    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0), backlog=0) as deaf:
        tls = certificate(Path(folder))
        servers = {
            "http": await asyncio.start_server(receiver.serve, "127.0.0.1", 0),
            "tls": await asyncio.start_server(receiver.serve, "127.0.0.1", 0, ssl=tls),
            "canary": await asyncio.start_server(sing, "127.0.0.1", 0),
        }
        # Listens, and never accepts.
        receiver.ports["deaf"] = deaf.getsockname()[1]
        for name, server in servers.items():
            receiver.ports[name] = server.sockets[0].getsockname()[1]
        sys.stdout.write(json.dumps(receiver.ports) + "\n")
        sys.stdout.flush()
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)


class ScriptedReceiver:
    """The process, for a test. `url("/status/200")` is where a scene plays."""

    def __init__(self) -> None:
        self.ports: dict[str, int] = {}
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.support.scripted_receiver", cwd=ROOT,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert self._process.stdout is not None
        self.ports = json.loads(await asyncio.wait_for(self._process.stdout.readline(), 30))
        return self

    async def __aexit__(self, *_: Any) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    def url(self, path: str, server: str = "http") -> str:
        return f"{'https' if server == 'tls' else 'http'}://127.0.0.1:{self.ports[server]}{path}"

    async def log(self) -> dict[str, Any]:
        """What it has heard so far, how often its canary was called, how many bytes it got rid of."""

        def ask() -> dict[str, Any]:
            with urlopen(self.url("/log"), timeout=10) as answer:
                return json.load(answer)

        return await asyncio.to_thread(ask)

    async def heard(self, path: str) -> list[dict[str, Any]]:
        return [one for one in (await self.log())["heard"] if one["path"] == path]


if __name__ == "__main__":
    asyncio.run(_play())
