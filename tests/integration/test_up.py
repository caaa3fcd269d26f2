"""What `minoots up` refuses before it starts anything, and what it prints when all is there."""

import json
import os
import shlex
import socket
from pathlib import Path

import pytest

from minoots.access.keyring import load_keyring
from minoots.cli.banner import Endpoints, curl, show_banner
from minoots.cli.up import up
from minoots.embedded.place import Place
from minoots.embedded.ports import free_port
from minoots.errors import ConfigError

ENDPOINTS = Endpoints(
    rest="http://127.0.0.1:4000",
    grpc="127.0.0.1:50051",
    postgres="psql postgresql://minoots:" + "0" * 100 + "@127.0.0.1:20000/minoots",
    nats="nats://127.0.0.1:4222",
    key="mnt_example",
    data_dir=Path(".minoots"),
)


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing may be made in it; both doors are free until a test takes one."""
    for name in ("MINOOTS_DATABASE_URL", "DATABASE_URL", "NATS_URL", "MINOOTS_POSTGRES_PORT", "MINOOTS_NATS_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name in ("MINOOTS_API_ADDRESS", "KERNEL_GRPC_ADDRESS"):
        monkeypatch.setenv(name, f"127.0.0.1:{free_port()}")
    return tmp_path / "data"


@pytest.mark.parametrize("setting", ["MINOOTS_API_ADDRESS", "KERNEL_GRPC_ADDRESS"])
def test_a_door_in_use_is_named_with_its_setting(data_dir: Path, monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv(setting, f"127.0.0.1:{port}")
        with pytest.raises(ConfigError, match=rf"port {port} is in use; .*{setting}"):
            up(data_dir)
    assert not data_dir.exists()


def test_an_address_of_another_machine_is_refused(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINOOTS_API_ADDRESS", "192.0.2.1:4000")
    with pytest.raises(ConfigError, match=r"MINOOTS_API_ADDRESS=192\.0\.2\.1:4000 cannot be listened on"):
        up(data_dir)


@pytest.mark.parametrize("port", ["none", "0", "65536"])
def test_a_port_that_is_none_is_refused(data_dir: Path, monkeypatch: pytest.MonkeyPatch, port: str) -> None:
    monkeypatch.setenv("MINOOTS_NATS_PORT", port)
    with pytest.raises(ConfigError, match="MINOOTS_NATS_PORT"):
        up(data_dir)


def test_a_key_that_wraps_nothing_is_refused(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINOOTS_SECRETS_KEY", "hush")
    with pytest.raises(ConfigError, match="MINOOTS_SECRETS_KEY is no base64 of 32 bytes") as refused:
        up(data_dir)
    assert "hush" not in refused.value.detail
    assert not data_dir.exists()


def test_the_key_that_wraps_secrets_is_made_once_and_readable_by_us_alone(folder: Path) -> None:
    with Place.prepare(folder / "keys") as place:
        made = place.secrets_key()
        assert load_keyring("production", made)
        kept = place.home / "secrets-key"
        assert kept.stat().st_mode & 0o777 == 0o600
        assert kept.stat().st_uid == os.geteuid()
    with Place.prepare(folder / "keys") as again:
        assert again.secrets_key() == made


def test_no_line_of_the_banner_is_wrapped(capsys: pytest.CaptureFixture[str]) -> None:
    show_banner(ENDPOINTS)
    shown = capsys.readouterr().out
    assert ENDPOINTS.postgres in shown
    assert curl(ENDPOINTS) in shown


def test_the_printed_curl_is_one_shell_command_with_json_in_it() -> None:
    words = shlex.split(curl(ENDPOINTS))
    assert words[:4] == ["curl", "-X", "POST", "http://127.0.0.1:4000/timers"]
    assert json.loads(words[words.index("-d") + 1])["duration"] == "5s"
