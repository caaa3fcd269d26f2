"""The rules of actions, bundles and agent bindings."""

import json
from typing import Any

import pytest

from minoots.domain.action import check_action_bundle, check_agent_binding
from minoots.errors import Finding, InvalidTimer


def refusal(bundle: Any) -> list[Finding]:
    with pytest.raises(InvalidTimer) as refused:
        check_action_bundle(json.dumps(bundle).encode())
    return list(refused.value.findings)


def action(**fields: Any) -> dict[str, Any]:
    return {"id": "call", "kind": "command", "parameters": {}} | fields


def webhook(**parameters: Any) -> dict[str, Any]:
    return action(kind="webhook", parameters={"url": "https://example.com/hook"} | parameters)


@pytest.mark.parametrize(
    "bundle",
    [
        {"actions": []},
        {"actions": [action(id=f"a{n}") for n in range(16)], "concurrency": 16},
        {"actions": [action(id="A" + "_-9" * 20 + "xy", kind="agent_prompt")]},
        {"actions": [action(id="0", kind="workflow_event", parameters={"any": [1, None]})]},
        {"actions": [webhook(method="GET", headers={"x-a": "tab\tand ümlaut 😀"}, body=None, timeoutMs=120_000)]},
        {"actions": [webhook(url="http://[::1]:8080/?a=b#c")], "retryPolicy": None, "concurrency": None},
        {
            "actions": [webhook(url="HTTPS://EXAMPLE.com:65535")],
            "retryPolicy": {"maxAttempts": 1000, "backoffMultiplier": 1},
        },
        {"actions": [webhook(url="https://example.com/" + "x" * 2028)]},
        {"actions": [webhook(body={"any": ["thing"]}, headers=None, method=None, timeoutMs=None)]},
    ],
)
def test_what_keeps_the_rules_passes(bundle: Any) -> None:
    check_action_bundle(json.dumps(bundle).encode())


@pytest.mark.parametrize(
    ("bundle", "pointer", "words"),
    [
        ([], "/actionBundle", "object"),
        ({}, "/actionBundle/actions", "required"),
        ({"actions": [], "retries": 1}, "/actionBundle/retries", "no field"),
        ({"actions": [action(id=f"a{n}") for n in range(17)]}, "/actionBundle/actions", "at most 16 items"),
        ({"actions": [], "concurrency": 0}, "/actionBundle/concurrency", "at least 1"),
        ({"actions": [], "concurrency": 17}, "/actionBundle/concurrency", "at most 16"),
        ({"actions": [], "retryPolicy": {"maxAttempts": 0}}, "/actionBundle/retryPolicy/maxAttempts", "at least 1"),
        ({"actions": [], "retryPolicy": {"attempts": 1}}, "/actionBundle/retryPolicy/attempts", "no field"),
        ({"actions": [action(kind="email")]}, "/actionBundle/actions/0/kind", "email"),
        ({"actions": [{"id": "a", "kind": "command"}]}, "/actionBundle/actions/0/parameters", "required"),
        ({"actions": [action(), action()]}, "/actionBundle/actions/1/id", "unique"),
        ({"actions": [action(id="agent")]}, "/actionBundle/actions/0/id", "taken"),
        ({"actions": [action(id="")]}, "/actionBundle/actions/0/id", "1 to 63"),
        ({"actions": [action(id="-a")]}, "/actionBundle/actions/0/id", "starts with"),
        ({"actions": [action(id="a~1")]}, "/actionBundle/actions/0/id", "1 to 63"),
        ({"actions": [action(id="a" * 64)]}, "/actionBundle/actions/0/id", "1 to 63"),
        ({"actions": [action(id="a\n")]}, "/actionBundle/actions/0/id", "1 to 63"),
        (
            {"actions": [action(escalation={"afterAttempts": 1})]},
            "/actionBundle/actions/0/escalation",
            "does not escalate",
        ),
        ({"actions": [action(id="a", kind="webhook")]}, "/actionBundle/actions/0/parameters/url", "required"),
        ({"actions": [webhook(urls=1)]}, "/actionBundle/actions/0/parameters/urls", "no field"),
        ({"actions": [webhook(method="TRACE")]}, "/actionBundle/actions/0/parameters/method", "TRACE"),
        ({"actions": [webhook(timeoutMs=120_001)]}, "/actionBundle/actions/0/parameters/timeoutMs", "at most 120000"),
        (
            {"actions": [webhook(headers={"a b": "x"})]},
            "/actionBundle/actions/0/parameters/headers/a b",
            "no HTTP header",
        ),
        (
            {"actions": [webhook(headers={"a/~": "x"})]},
            "/actionBundle/actions/0/parameters/headers/a~1~0",
            "no HTTP header",
        ),
        ({"actions": [webhook(headers={"x": "a\r\nb: c"})]}, "/actionBundle/actions/0/parameters/headers/x", "control"),
        (
            {"actions": [webhook(headers={"x": 1})]},
            "/actionBundle/actions/0/parameters/headers",
            "text, not a whole number",
        ),
    ],
)
def test_what_breaks_a_rule_is_told_with_its_place(bundle: Any, pointer: str, words: str) -> None:
    (finding,) = refusal(bundle)
    assert finding.pointer == pointer
    assert words in finding.detail


@pytest.mark.parametrize(
    "url",
    ["", "example.com", "ftp://example.com", "http://", "http:///x", "http://:80/", "http://h:/", "http://h:0/",
     "http://h:65536/", "http://h:8o/", "http://ann@h/", "http://ann:pw@h/", "http://h/a b", " http://h/", "http://h/\n",
     "http://h\\x/", "http://[::1/", "http://[zz]/", "javascript:alert(1)", "https://h/" + "x" * 2040, "//h/x"],
)  # fmt: skip
def test_a_url_that_a_webhook_cannot_go_to_is_refused(url: str) -> None:
    (finding,) = refusal({"actions": [webhook(url=url)]})
    assert finding.pointer == "/actionBundle/actions/0/parameters/url"


@pytest.mark.parametrize(
    "name",
    ["Host", "content-length", "Transfer-Encoding", "Connection", "Cookie", "Upgrade", "TE", "Trailer", "webhook-id",
     "Webhook-Signature", "X-Minoots-Timer-Id", "Proxy-Authorization"],
)  # fmt: skip
def test_headers_that_the_sender_sets_are_taken(name: str) -> None:
    (finding,) = refusal({"actions": [webhook(headers={name: "x"})]})
    assert "set by the sender" in finding.detail


def test_all_faults_of_a_bundle_are_told_at_once() -> None:
    found = refusal({"actions": [webhook(url="x", headers={"host": "y"}), action(), action(id="agent")]})
    assert [finding.pointer.removeprefix("/actionBundle/actions") for finding in found] == [
        "/0/parameters/url", "/0/parameters/headers/host", "/1/id", "/2/id",
    ]  # fmt: skip


def test_a_bundle_nested_beyond_all_bounds_is_a_refusal() -> None:
    deep = b'{"actions":[{"id":"a","kind":"command","parameters":' + b'{"a":' * 50_000 + b"1" + b"}" * 50_000 + b"}]}"
    with pytest.raises(InvalidTimer, match="deeper than 32"):
        check_action_bundle(deep)


@pytest.mark.parametrize(
    "binding",
    [
        {"adapter": "mcp", "target": "t"},
        {"adapter": "custom", "target": "t" * 2048, "payloadTemplate": [1, {"a": None}], "acknowledgementTimeoutMs": 1},
        {"adapter": "langchain", "target": "t", "payloadTemplate": None, "acknowledgementTimeoutMs": None},
    ],
)
def test_an_agent_binding_that_keeps_the_rules_passes(binding: Any) -> None:
    check_agent_binding(json.dumps(binding).encode())


@pytest.mark.parametrize(
    ("binding", "pointer"),
    [
        ({}, "/agentBinding/adapter"),
        ({"adapter": "smtp", "target": "t"}, "/agentBinding/adapter"),
        ({"adapter": "mcp", "target": ""}, "/agentBinding/target"),
        ({"adapter": "mcp", "target": "t" * 2049}, "/agentBinding/target"),
        ({"adapter": "mcp", "target": "t", "acknowledgementTimeoutMs": 0}, "/agentBinding/acknowledgementTimeoutMs"),
        ({"adapter": "mcp", "target": "t", "extra": 1}, "/agentBinding/extra"),
    ],
)
def test_an_agent_binding_that_breaks_a_rule_is_told_with_its_place(binding: Any, pointer: str) -> None:
    with pytest.raises(InvalidTimer) as refused:
        check_agent_binding(json.dumps(binding).encode())
    assert [finding.pointer for finding in refused.value.findings] == [pointer]
