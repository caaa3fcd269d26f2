"""Who is calling and what they may."""

import json
from pathlib import Path
from typing import Any

import pytest

from minoots.access.keys import DEMO_KEYS, SCOPES, Caller, Keys, load_keys
from minoots.errors import ConfigError, Forbidden, InvalidTimer, MalformedRequest, Unauthenticated

SECRET = "mnt_very_secret_0123456789"


def keys(*entries: dict[str, Any], env: Any = "development") -> Keys:
    return load_keys(env, None, json.dumps([{"key": SECRET, "userId": "ann"} | entry for entry in entries]))


def caller(**entry: Any) -> Caller:
    return keys(entry).identify(SECRET)


def test_development_accepts_the_demo_keys_when_none_are_given() -> None:
    found = load_keys("development", None, None)
    for key in ("mnt_example", "mnt_demo_key_free", "mnt_demo_key_pro", "mnt_demo_key_team"):
        assert found.identify(key).tenants is None
    assert found.identify("mnt_demo_key_pro").tier == "pro"


def test_demo_keys_are_gone_when_keys_are_given() -> None:
    with pytest.raises(Unauthenticated, match="not known"):
        keys({}).identify("mnt_example")


@pytest.mark.parametrize("key", [None, ""])
def test_no_key_is_told_where_to_give_one(key: str | None) -> None:
    with pytest.raises(Unauthenticated, match="X-API-Key"):
        keys({}).identify(key)


@pytest.mark.parametrize("key", [SECRET + "x", SECRET[:-1], SECRET.upper(), " " + SECRET, "\udcff\udcfe", "😀"])
def test_another_key_is_not_known(key: str) -> None:
    with pytest.raises(Unauthenticated, match="not known"):
        keys({}).identify(key)


def test_a_key_says_who_calls() -> None:
    assert caller(tier="team", tenants=["acme", "beta"], scopes=["timers:read"]) == Caller(
        "ann", "team", frozenset({"acme", "beta"}), frozenset({"timers:read"})
    )


def test_production_has_no_demo_keys() -> None:
    with pytest.raises(ConfigError, match="set API_KEYS_PATH or API_KEYS_JSON"):
        load_keys("production", None, None)


@pytest.mark.parametrize("demo", sorted(DEMO_KEYS))
def test_production_refuses_a_demo_key_in_its_keys(demo: str) -> None:
    with pytest.raises(ConfigError, match="entry 1 is a demo key"):
        keys({"tenants": ["acme"]}, {"key": demo, "tenants": ["acme"]}, env="production")


def test_production_refuses_a_key_for_all_tenants() -> None:
    with pytest.raises(ConfigError, match="entry 0 names no tenants"):
        keys({}, env="production")
    assert keys({"tenants": ["acme"]}, env="production").identify(SECRET).tenants == {"acme"}


@pytest.mark.parametrize(
    "text",
    [
        f'[{{"key":"{SECRET}"}}]',
        f'[{{"key":"{SECRET}","userId":"ann","tier":"gold"}}]',
        f'[{{"key":"{SECRET}","userId":"ann","tenant":"acme"}}]',
        f'[{{"key":"{SECRET}","userId":"ann","tenants":["a b"]}}]',
        f'[{{"key":"{SECRET}","userId":"ann","scopes":["timers:all"]}}]',
        f'[{{"key":"{SECRET}","userId":"{SECRET}","tenants":"acme"}}]',
        f'{{"key":"{SECRET}","userId":"ann"}}',
        f'[{{"key":"{SECRET}","userId":"ann"',
        f'["{SECRET}"]',
        f'[{{"key":"{SECRET[:7]}","userId":"ann"}}]',
        f'[{{"{SECRET}":1}}]',
    ],
)
@pytest.mark.parametrize("env", ["development", "production"])
def test_a_refusal_of_keys_never_holds_a_key(text: str, env: Any, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_text(text)
    for path, given, source in ((None, text, "API_KEYS_JSON"), (file, None, "API_KEYS_PATH")):
        with pytest.raises(ConfigError) as refused:
            load_keys(env, path, given)
        assert source in refused.value.detail
        assert SECRET[:7] not in refused.value.detail.replace("mnt_…", "")
        assert SECRET not in repr(refused.value.__cause__)


def test_keys_are_kept_as_hashes_alone() -> None:
    held = keys({"tenants": ["acme"]})
    assert SECRET not in repr(vars(held))
    assert SECRET.encode() not in b"".join(held._callers)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"keys\.json cannot be read: No such file"):
        load_keys("production", tmp_path / "keys.json", None)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_bytes(b"\xff\xfe[]")
    with pytest.raises(ConfigError, match="API_KEYS_PATH"):
        load_keys("production", file, None)


def test_two_entries_with_one_key_are_refused() -> None:
    with pytest.raises(ConfigError, match="entry 1"):
        keys({"tenants": ["acme"]}, {"tenants": ["beta"]})


# ---- scopes and tenants ----


def test_a_key_without_scopes_may_do_everything() -> None:
    for scope in SCOPES:
        caller().require(scope)


def test_a_key_with_scopes_may_do_these_alone() -> None:
    reader = caller(scopes=["timers:read"])
    reader.require("timers:read")
    with pytest.raises(Forbidden, match="timers:write"):
        reader.require("timers:write")
    for scope in SCOPES:
        with pytest.raises(Forbidden):
            caller(scopes=[]).require(scope)


def test_all_places_that_name_a_tenant_must_agree() -> None:
    anyone = caller()
    assert anyone.choose_tenant([("the body", "acme"), ("the header", "acme"), ("the parameter", None)]) == "acme"
    with pytest.raises(MalformedRequest, match="the body says 'acme' and the header says 'beta'"):
        anyone.choose_tenant([("the body", "acme"), ("the header", "beta")])


def test_a_contradiction_is_told_even_to_a_key_that_may_use_neither() -> None:
    with pytest.raises(MalformedRequest):
        caller(tenants=["gamma"]).choose_tenant([("the body", "acme"), ("the header", "beta")])


def test_without_a_named_tenant_the_keys_only_one_is_used() -> None:
    assert caller(tenants=["acme"]).choose_tenant([("the body", None), ("the header", "")]) == "acme"
    for unsure in (caller(), caller(tenants=["acme", "beta"]), caller(tenants=[])):
        with pytest.raises(MalformedRequest, match="x-tenant-id"):
            unsure.choose_tenant([])


def test_a_tenant_that_the_key_may_not_use_is_forbidden() -> None:
    assert caller(tenants=["acme", "beta"]).choose_tenant([("the body", "beta")]) == "beta"
    for bound in (caller(tenants=["acme"]), caller(tenants=[])):
        with pytest.raises(Forbidden, match="may not use the tenant beta"):
            bound.choose_tenant([("the body", "beta")])


@pytest.mark.parametrize("tenant", ["a", "A9_:@-", "0" * 128])
def test_names_of_tenants_are_taken(tenant: str) -> None:
    assert caller().choose_tenant([("the body", tenant)]) == tenant


@pytest.mark.parametrize("tenant", [" ", "-a", "_a", "a b", "a/b", "a.b", "é", "a\n", "٣", "a" * 129, "a\0", "\udcff"])
def test_what_is_no_tenant_is_refused(tenant: str) -> None:
    with pytest.raises(InvalidTimer) as refused:
        caller().choose_tenant([("the header", tenant)])
    assert refused.value.findings[0].pointer == "/tenantId"
