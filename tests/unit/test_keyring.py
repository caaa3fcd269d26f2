"""The keys that wrap stored secrets: which one wraps, which unwrap, and what they refuse."""

import base64
import os

import pytest

from minoots.access.keyring import DEVELOPMENT_KEY, CannotUnwrap, Keyring, load_keyring, make_key
from minoots.errors import ConfigError
from minoots.settings import Settings

OLD, NEW, OTHER = (bytes([n]) * 32 for n in (1, 2, 3))
SECRET = b"twenty-four bytes, or so"


def text(*keys: bytes) -> str:
    return ",".join(base64.b64encode(key).decode() for key in keys)


def test_what_is_wrapped_comes_back_and_does_not_show() -> None:
    ring = Keyring([OLD])
    wrapped = ring.wrap(SECRET, b"acme")
    assert SECRET not in wrapped
    assert ring.unwrap(wrapped, b"acme") == SECRET
    assert ring.wrap(SECRET, b"acme") != wrapped, "each time another nonce"


def test_it_is_wrapped_for_its_context_alone() -> None:
    ring = Keyring([OLD])
    with pytest.raises(CannotUnwrap, match="not as it was stored"):
        ring.unwrap(ring.wrap(SECRET, b"acme"), b"beta")


@pytest.mark.parametrize("place", range(57))
def test_not_a_byte_of_it_may_change(place: int) -> None:
    ring = Keyring([OLD])
    wrapped = bytearray(ring.wrap(SECRET, b"acme"))
    wrapped[place] ^= 1
    with pytest.raises(CannotUnwrap):
        ring.unwrap(bytes(wrapped), b"acme")


@pytest.mark.parametrize("size", [0, 1, 5, 17, 32, 56])
def test_a_part_of_it_is_nothing(size: int) -> None:
    ring = Keyring([OLD])
    with pytest.raises(CannotUnwrap):
        ring.unwrap(ring.wrap(SECRET)[:size])


def test_a_new_key_wraps_and_the_old_one_still_unwraps() -> None:
    wrapped = Keyring([OLD]).wrap(SECRET)
    both = Keyring([NEW, OLD])
    assert both.unwrap(wrapped) == SECRET
    assert not both.is_current(wrapped)
    again = both.wrap(SECRET)
    assert both.is_current(again)
    assert Keyring([NEW]).unwrap(again) == SECRET
    with pytest.raises(CannotUnwrap, match="MINOOTS_SECRETS_KEY does not name"):
        Keyring([NEW]).unwrap(wrapped)


def test_what_is_derived_is_of_the_first_key_and_good_for_as_long_as_it_is_named() -> None:
    made = Keyring([OLD]).derive(b"ack")
    assert len(made) == 32
    assert made == Keyring([OLD, OTHER]).derive(b"ack")
    assert made != Keyring([OLD]).derive(b"another use")
    after = Keyring([NEW, OLD])
    assert after.derive_all(b"ack") == [Keyring([NEW]).derive(b"ack"), made]
    assert after.derive(b"ack") != made


def test_the_setting_takes_what_openssl_makes() -> None:
    assert load_keyring("production", text(os.urandom(32))).derive(b"x")
    ring = load_keyring("production", f" {text(NEW)} , {text(OLD)} ")
    assert ring.unwrap(Keyring([OLD]).wrap(SECRET)) == SECRET
    assert load_keyring("production", make_key()).derive(b"x")


@pytest.mark.parametrize(
    ("wrong", "nth"),
    [("c2hvcnQ=", 1), ("not base64 at all!", 1), (text(OLD) + ",", 2), (text(OLD)[:-1], 1), (text(OLD + b"x"), 1)],
)
def test_a_key_that_is_none_is_told_by_its_place_and_never_repeated(wrong: str, nth: int) -> None:
    with pytest.raises(ConfigError, match=f"key {nth} in MINOOTS_SECRETS_KEY") as refused:
        load_keyring("development", wrong)
    assert "openssl rand -base64 32" in refused.value.detail
    assert not any(part and part in refused.value.detail for part in wrong.split(","))


def test_production_has_no_key_of_its_own() -> None:
    with pytest.raises(ConfigError, match="openssl rand -base64 32"):
        load_keyring("production", None)


def test_development_has_one_that_everybody_knows() -> None:
    wrapped = load_keyring("development", None).wrap(SECRET)
    assert Keyring([DEVELOPMENT_KEY]).unwrap(wrapped) == SECRET


def test_settings_do_not_show_the_key() -> None:
    settings = Settings.from_env({"MINOOTS_SECRETS_KEY": text(OLD)})
    assert settings.secrets_key == text(OLD)
    assert text(OLD) not in repr(settings)
    assert Settings.from_env({"MINOOTS_SECRETS_KEY": " "}).secrets_key is None
