"""The rules of actions, bundles and agent bindings."""

import json
from typing import Any

import pytest

from minoots.domain.action import check_action_bundle, check_agent_binding, check_agents_are_bound
from minoots.errors import Finding, InvalidTimer


def refusal(bundle: Any) -> list[Finding]:
    with pytest.raises(InvalidTimer) as refused:
        check_action_bundle(json.dumps(bundle).encode())
    return list(refused.value.findings)


def action(**fields: Any) -> dict[str, Any]:
    return {"id": "call", "kind": "command", "parameters": {}} | fields


def webhook(**parameters: Any) -> dict[str, Any]:
    return action(kind="webhook", parameters={"url": "https://example.com/hook"} | parameters)


def escalation(to: dict[str, Any], after: int = 3) -> dict[str, Any]:
    return {"afterAttempts": after, "escalatesTo": to}


def escalating(deep: int) -> dict[str, Any]:
    """An action that escalates so many times in a row."""
    return action(escalation=escalation(escalating(deep - 1))) if deep else action()


@pytest.mark.parametrize(
    "bundle",
    [
        {"actions": []},
        {"actions": [action(id=f"a{n}") for n in range(16)], "concurrency": 16},
        {"actions": [action(id="A" + "_-9" * 20 + "xy", kind="agent_prompt")]},
        {"actions": [action(id="0", kind="workflow_event", parameters={"name": "a.b", "payload": [1, None]})]},
        {"actions": [webhook(method="GET", headers={"x-a": "tab\tand ümlaut 😀"}, body=None, timeoutMs=120_000)]},
        {"actions": [webhook(url="http://[::1]:8080/?a=b#c")], "retryPolicy": None, "concurrency": None},
        {
            "actions": [webhook(url="HTTPS://EXAMPLE.com:65535")],
            "retryPolicy": {"maxAttempts": 1000, "backoffMultiplier": 1},
        },
        {"actions": [webhook(url="https://example.com/" + "x" * 2028)]},
        {"actions": [webhook(body={"any": ["thing"]}, headers=None, method=None, timeoutMs=None)]},
        {"actions": [action(escalation=escalation(webhook() | {"id": "call"})), action(id="b", escalation=None)]},
        {"actions": [action(escalation=escalation({"kind": "command", "parameters": {}}, after=1000))]},
        {"actions": [escalating(4)]},
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
        (
            {"actions": [action(kind="workflow_event", parameters={"name": "a..b"})]},
            "/actionBundle/actions/0/parameters/name",
            "order.overdue",
        ),
        (
            {"actions": [action(kind="workflow_event", parameters={"name": "a", "payload": 1, "payloadTemplate": 2})]},
            "/actionBundle/actions/0/parameters/payloadTemplate",
            "not both",
        ),
        (
            {"actions": [action(kind="workflow_event", parameters={"name": "a", "endpoint": "nats://x"})]},
            "/actionBundle/actions/0/parameters/endpoint",
            "http",
        ),
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
            "/actionBundle/actions/0/escalation/escalatesTo",
            "required",
        ),
        (
            {"actions": [action(escalation=escalation(action(), after=0))]},
            "/actionBundle/actions/0/escalation/afterAttempts",
            "at least 1",
        ),
        (
            {"actions": [action(escalation=escalation(action(id="a~1")))]},
            "/actionBundle/actions/0/escalation/escalatesTo/id",
            "1 to 63",
        ),
        (
            {"actions": [action(escalation=escalation(webhook(url="ftp://x")))]},
            "/actionBundle/actions/0/escalation/escalatesTo/parameters/url",
            "http or https",
        ),
        (
            {"actions": [escalating(5)]},
            "/actionBundle/actions/0" + "/escalation/escalatesTo" * 4 + "/escalation",
            "at most 4",
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
        {"adapter": "mcp", "target": "http://h/mcp#tool"},
        {
            "adapter": "custom",
            "target": "http://h/" + "t" * 2039,
            "payloadTemplate": [1, {"a": None}],
            "acknowledgementTimeoutMs": 1,
        },
        {"adapter": "langchain", "target": "http://h", "payloadTemplate": None, "acknowledgementTimeoutMs": None},
        {"adapter": "autogen", "target": "nats:planner.jobs", "payloadTemplate": "{{timer.name}}"},
        {"adapter": "acme.crew", "target": "whatever it is"},
    ],
)
def test_an_agent_binding_that_keeps_the_rules_passes(binding: Any) -> None:
    check_agent_binding(json.dumps(binding).encode())


@pytest.mark.parametrize(
    ("binding", "pointer"),
    [
        ({}, "/agentBinding/adapter"),
        ({"adapter": "smtp", "target": "http://h"}, "/agentBinding/adapter"),
        ({"adapter": "mcp", "target": ""}, "/agentBinding/target"),
        ({"adapter": "mcp", "target": "agent://brew"}, "/agentBinding/target"),
        ({"adapter": "mcp", "target": "http://h#no such tool"}, "/agentBinding/target"),
        ({"adapter": "mcp", "target": "nats:planner"}, "/agentBinding/target"),
        ({"adapter": "custom", "target": "nats:planner.>"}, "/agentBinding/target"),
        ({"adapter": "custom", "target": "http://ann@h"}, "/agentBinding/target"),
        ({"adapter": "mcp", "target": "http://h/" + "t" * 2040}, "/agentBinding/target"),
        (
            {"adapter": "mcp", "target": "http://h", "acknowledgementTimeoutMs": 0},
            "/agentBinding/acknowledgementTimeoutMs",
        ),
        ({"adapter": "mcp", "target": "http://h", "extra": 1}, "/agentBinding/extra"),
        (
            {"adapter": "custom", "target": "http://h", "payloadTemplate": {"a": ["{{timer.x}}", "{{x}}"]}},
            "/agentBinding/payloadTemplate/a/1",
        ),
    ],
)
def test_an_agent_binding_that_breaks_a_rule_is_told_with_its_place(binding: Any, pointer: str) -> None:
    with pytest.raises(InvalidTimer) as refused:
        check_agent_binding(json.dumps(binding).encode())
    assert [finding.pointer for finding in refused.value.findings] == [pointer]


@pytest.mark.parametrize(
    ("parameters", "pointer"),
    [
        ({"prompt": 1}, "/prompt"),
        ({"prompt": "{{x}}"}, "/prompt"),
        ({"prompt": "x", "payloadTemplate": {}}, "/prompt"),
        ({"payloadTemplate": ["{{x}}"]}, "/payloadTemplate/0"),
        ({"adapter": "custom"}, "/target"),
        ({"target": "http://h"}, "/adapter"),
        ({"adapter": "smtp", "target": "http://h"}, "/adapter"),
        ({"adapter": "custom", "target": "x"}, "/target"),
        ({"headers": {"Host": "x"}}, "/headers/Host"),
        ({"headers": {"a/b": "x"}}, "/headers/a~1b"),
        ({"timeoutMs": 120_001}, "/timeoutMs"),
        ({"to": "x"}, "/to"),
    ],
)
def test_what_a_prompt_cannot_be_is_told_with_its_place(parameters: Any, pointer: str) -> None:
    (finding,) = refusal({"actions": [action(kind="agent_prompt", parameters=parameters)]})
    assert finding.pointer == f"/actionBundle/actions/0/parameters{pointer}"


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"prompt": "Wake up, {{timer.name}}"},
        {"adapter": None, "target": None, "payloadTemplate": {"a": "{{ack.url}}"}, "prompt": None},
        {"adapter": "mcp", "target": "https://h/mcp#remind", "headers": {"authorization": "x"}, "timeoutMs": 1},
    ],
)
def test_a_prompt_may_leave_to_the_binding_where_it_goes(parameters: Any) -> None:
    check_action_bundle(json.dumps({"actions": [action(kind="agent_prompt", parameters=parameters)]}).encode())


def test_a_prompt_that_nobody_says_the_way_of_is_told() -> None:
    known = action(kind="agent_prompt", parameters={"adapter": "custom", "target": "http://h"})
    lost = action(id="b", kind="agent_prompt", parameters={"prompt": "x"})
    escalating = known | {"id": "c", "escalation": {"afterAttempts": 1, "escalatesTo": {**lost, "id": None}}}
    found = check_agents_are_bound(json.dumps({"actions": [known, lost, escalating]}))
    assert [finding.pointer for finding in found] == [
        "/actionBundle/actions/1/parameters/target",
        "/actionBundle/actions/2/escalation/escalatesTo/parameters/target",
    ]
