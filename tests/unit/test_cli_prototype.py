"""Reading the prototype's store, and its timers in our words."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from minoots.cli.exits import CommandStopped
from minoots.cli.prototype import MARK, Ended, NotTaken, convert, convert_bundle, read_store

SOON = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
OLD: dict[str, Any] = {
    "id": "old-1",
    "tenantId": "demo",
    "requestedBy": "cli",
    "name": "tea",
    "durationMs": 3_600_000,
    "createdAt": (SOON - timedelta(hours=1)).isoformat(),
    "fireAt": SOON.isoformat(),
    "status": "scheduled",
    "metadata": {"note": "brew"},
    "labels": {"team": "kitchen"},
    "actionBundle": None,
    "agentBinding": None,
}


def stored(tmp_path: Path, content: Any) -> Path:
    file = tmp_path / "store.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


@pytest.mark.parametrize(
    "content",
    [
        [OLD],
        {"old-1": OLD},
        {"old-1": {k: v for k, v in OLD.items() if k != "id"}},
        {"timers": [OLD]},
        {"version": 1, "timers": {"old-1": OLD}},
    ],
)
def test_every_shape_of_the_store_is_read(tmp_path: Path, content: Any) -> None:
    ((key, old),) = read_store(stored(tmp_path, content))
    timer = convert(key, old, None)
    assert (timer.old_id, timer.tenant_id) == ("old-1", "demo")


@pytest.mark.parametrize("content", [[], {}, {"timers": []}, {"timers": {}}])
def test_an_empty_store_is_no_error(tmp_path: Path, content: Any) -> None:
    assert read_store(stored(tmp_path, content)) == []


@pytest.mark.parametrize("content", ['"text"', "{broken", "3", '{"a": 1}', "[" * 100_000, '[{"x": NaN}]', ""])
def test_what_is_no_store_is_a_usage_error(tmp_path: Path, content: str) -> None:
    with pytest.raises(CommandStopped) as stopped:
        read_store(stored(tmp_path, content))
    assert stopped.value.code == 2


def test_a_waiting_timer_keeps_its_instant_and_gets_its_mark() -> None:
    body = convert("", OLD, None).request(datetime.now(UTC))
    assert body == {
        "requestedBy": "cli",
        "name": "tea",
        "metadata": {"note": "brew"},
        "labels": {"team": "kitchen", MARK: "old-1"},
        "fireAt": SOON.strftime("%Y-%m-%dT%H:%M:%S.000000Z"),
    }


def test_what_fell_due_meanwhile_fires_at_once() -> None:
    timer = convert("", OLD | {"fireAt": "2025-01-01T00:00:00Z"}, None)
    assert timer.request(datetime.now(UTC))["duration"] == "1ms"


@pytest.mark.parametrize(
    "value",
    [int(SOON.timestamp() * 1000), str(int(SOON.timestamp() * 1000)), SOON.isoformat()],
    ids=["number", "digits", "iso"],
)
def test_instants_are_iso_or_milliseconds(value: Any) -> None:
    assert convert("", OLD | {"fireAt": value}, None).fire_at == SOON
    assert convert("", OLD | {"fireAt": None}, None).fire_at == SOON


@pytest.mark.parametrize("status", ["scheduled", "ARMED", "Pending", "TIMER_STATUS_SCHEDULED"])
def test_waiting_is_told_in_any_case(status: str) -> None:
    assert convert("", OLD | {"status": status}, None).old_id == "old-1"


@pytest.mark.parametrize("status", ["fired", "Cancelled", "canceled", "SETTLED", "failed"])
def test_what_has_ended_stays_behind(status: str) -> None:
    with pytest.raises(Ended):
        convert("", OLD | {"status": status}, None)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"status": None}, "no status"),
        ({"status": "melted"}, "'melted'"),
        ({"id": None}, "no id"),
        ({"id": "x" * 256}, "longer than 255"),
        ({"fireAt": "tomorrow"}, "no instant"),
        ({"fireAt": "2030-01-01T00:00:00"}, "with its offset"),
        ({"fireAt": 1_700_000_000}, "no count of milliseconds"),
        ({"fireAt": True}, "no instant"),
        ({"fireAt": None, "createdAt": None}, "no fireAt"),
        ({"fireAt": None, "durationMs": 1e300}, "out of range"),
        ({"metadata": [1]}, "metadata is a JSON object"),
        ({"labels": [1]}, "labels are no JSON object"),
        ({"labels": {"a": {}}}, "labels"),
        ({"name": "x" * 201}, "name"),
        ({"requestedBy": 7}, "requestedBy"),
        ({"tenantId": 7}, "tenantId"),
        ({"actionBundle": {"actions": [{"type": "dance"}]}}, "actionBundle"),
        ({"actionBundle": "x"}, "actionBundle"),
        ({"agentBinding": {"adapter": "mcp"}}, "target"),
        ({"name": "\ud800"}, ""),
    ],
)
def test_what_breaks_a_rule_is_left_with_the_reason(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(NotTaken) as left:
        convert("", OLD | change, None)
    assert not isinstance(left.value, Ended)
    assert reason in str(left.value)


def test_what_is_no_object_is_left() -> None:
    with pytest.raises(NotTaken, match="no JSON object"):
        convert("k", "text", None)


def test_names_with_underscores_are_read_too() -> None:
    old = {"id": "r1", "tenant_id": "demo", "requested_by": "k", "fire_at": SOON.isoformat(), "status": "Armed"}
    timer = convert("", old, None)
    assert (timer.tenant_id, timer.body["requestedBy"]) == ("demo", "k")


def test_the_tenant_of_the_command_line_goes_first() -> None:
    assert convert("", OLD, "other").tenant_id == "other"
    assert convert("", OLD | {"tenantId": None}, None).tenant_id is None


def test_labels_become_text() -> None:
    labels = convert("", OLD | {"labels": {"n": 3, "b": True, "z": None, "t": "x"}}, None).body["labels"]
    assert labels == {"n": "3", "b": "true", "t": "x", MARK: "old-1"}


def test_actions_in_the_prototypes_words_become_ours() -> None:
    bundle = convert_bundle(
        [
            {"type": "Webhook", "params": {"url": "https://a.test", "method": "post", "timeout_ms": 5}},
            {"id": "action-1", "kind": "agentPrompt", "payload": {"prompt": "x"}, "escalation": None},
            {
                "type": "webhook",
                "url": "https://b.test",
                "escalation": {"after_attempts": 2, "escalates_to": {"type": "command", "parameters": {}}},
            },
        ]
    )
    assert bundle == {
        "actions": [
            {
                "id": "action-2",
                "kind": "webhook",
                "parameters": {"url": "https://a.test", "method": "POST", "timeoutMs": 5},
            },
            {"id": "action-1", "kind": "agent_prompt", "parameters": {"prompt": "x"}},
            {
                "id": "action-3",
                "kind": "webhook",
                "parameters": {"url": "https://b.test"},
                "escalation": {
                    "afterAttempts": 2,
                    "escalatesTo": {"id": "action-4", "kind": "command", "parameters": {}},
                },
            },
        ]
    }


def test_escalations_without_ids_get_one_each_and_have_an_end() -> None:
    action: dict[str, Any] = {"type": "command"}
    for _ in range(3):
        action = {"type": "command", "escalation": {"afterAttempts": 1, "escalatesTo": action}}
    ids, inner = [], convert_bundle([action])["actions"][0]
    while inner:
        ids.append(inner["id"])
        inner = inner.get("escalation", {}).get("escalatesTo")
    assert sorted(ids) == [f"action-{n}" for n in range(1, 5)]
    for _ in range(400):
        action = {"type": "command", "escalation": {"afterAttempts": 1, "escalatesTo": action}}
    with pytest.raises(NotTaken):
        convert("", OLD | {"actionBundle": [action]}, None)


def test_the_idempotency_key_fits_into_a_header_whatever_the_id_is() -> None:
    assert convert("", OLD, None).idempotency_key() == "import:old-1"
    for odd in ("ü", "a b", "x" * 250):
        key = convert("", OLD | {"id": odd}, None).idempotency_key()
        assert key.isascii()
        assert len(key) <= 255
        assert key == convert("", OLD | {"id": odd}, None).idempotency_key()
