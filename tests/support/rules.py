"""Timers that break a rule, and one that uses everything, in the words of REST; for whoever compares doors."""

from typing import Any

from tests.support.timers import webhook


def nested(deep: int) -> Any:
    """An object so many levels deep."""
    value: Any = 1
    for _ in range(deep):
        value = {"a": value}
    return value


def acting(**fields: Any) -> dict[str, Any]:
    """A bundle of one command that differs from a good one in these fields."""
    return {"actions": [{"id": "a", "kind": "command", "parameters": {}} | fields]}


def calling(**parameters: Any) -> dict[str, Any]:
    """A bundle of one webhook with these parameters."""
    return {
        "actions": [
            webhook("https://example.com/hook") | {"parameters": {"url": "https://example.com/hook"} | parameters}
        ]
    }


# Everything that a timer may have, but for its instant.
WHOLE: dict[str, Any] = {
    "requestedBy": "ann",
    "name": "Tee, 3½ min ☕",
    "metadata": {"order": 7, "price": 12.5, "lines": [{"a": None}, True, 'é"\\\n'], "": {}},
    "labels": {"kind": "tea", "für": ""},
    "actionBundle": {
        "actions": [
            webhook(
                "https://example.com/hook?x=1", "call", method="PUT", headers={"x-a": "b"}, body={"n": 1}, timeoutMs=900
            ),
            {"id": "tell", "kind": "workflow_event", "parameters": {"name": "tea.ready", "payload": [1]}},
        ],
        "concurrency": 2,
        "retryPolicy": {"maxAttempts": 3, "backoffMultiplier": 1.5, "maxAgeMs": 60_000},
    },
    "agentBinding": {
        "adapter": "mcp",
        "target": "https://agents.example.com/mcp#brew",
        "payloadTemplate": ["x"],
        "acknowledgementTimeoutMs": 5,
    },
}

# What to ask, and the field that is at fault.
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "name empty": ({"name": ""}, "/name"),
    "name too long": ({"name": "x" * 201}, "/name"),
    "requestedBy empty": ({"requestedBy": ""}, "/requestedBy"),
    "requestedBy too long": ({"requestedBy": "x" * 201}, "/requestedBy"),
    "label key empty": ({"labels": {"": "x"}}, "/labels"),
    "label key too long": ({"labels": {"k" * 64: "x"}}, "/labels"),
    "label value too long": ({"labels": {"k": "x" * 256}}, "/labels"),
    "too many labels": ({"labels": {f"k{n}": "" for n in range(65)}}, "/labels"),
    "metadata too large": ({"metadata": {"a": "x" * 65_536}}, "/metadata"),
    "metadata too large as Postgres writes it": ({"metadata": {str(n): 1e300 for n in range(230)}}, "/metadata"),
    "metadata too deep": ({"metadata": nested(33)}, "/metadata"),
    "metadata with NUL": ({"metadata": {"a": ["\0"]}}, "/metadata/a/0"),
    "name with NUL": ({"name": "a\0b"}, "/name"),
    "bundle too deep": ({"actionBundle": acting(parameters=nested(30))}, "/actionBundle"),
    "too many actions": ({"actionBundle": {"actions": acting()["actions"] * 17}}, "/actionBundle/actions"),
    "two actions with one id": ({"actionBundle": {"actions": acting()["actions"] * 2}}, "/actionBundle/actions/1/id"),
    "concurrency out of range": ({"actionBundle": acting() | {"concurrency": 17}}, "/actionBundle/concurrency"),
    "retry policy out of range": (
        {"actionBundle": acting() | {"retryPolicy": {"maxAttempts": 1001}}},
        "/actionBundle/retryPolicy/maxAttempts",
    ),
    "action id taken": ({"actionBundle": acting(id="agent")}, "/actionBundle/actions/0/id"),
    "action id not well formed": ({"actionBundle": acting(id="a~1")}, "/actionBundle/actions/0/id"),
    "action of no kind": ({"actionBundle": acting(kind="email")}, "/actionBundle/actions/0/kind"),
    "webhook to nowhere": ({"actionBundle": calling(url="http://")}, "/actionBundle/actions/0/parameters/url"),
    "webhook by file": ({"actionBundle": calling(url="file:///etc")}, "/actionBundle/actions/0/parameters/url"),
    "webhook with a password": (
        {"actionBundle": calling(url="http://a:b@h/")},
        "/actionBundle/actions/0/parameters/url",
    ),
    "webhook with an own host": (
        {"actionBundle": calling(headers={"Host": "x"})},
        "/actionBundle/actions/0/parameters/headers/Host",
    ),
    "webhook with a split header": (
        {"actionBundle": calling(headers={"x": "a\r\nb"})},
        "/actionBundle/actions/0/parameters/headers/x",
    ),
    "webhook too patient": (
        {"actionBundle": calling(timeoutMs=120_001)},
        "/actionBundle/actions/0/parameters/timeoutMs",
    ),
    "webhook by TRACE": ({"actionBundle": calling(method="TRACE")}, "/actionBundle/actions/0/parameters/method"),
    "agent of no adapter": ({"agentBinding": {"adapter": "smtp", "target": "http://h"}}, "/agentBinding/adapter"),
    "agent of no URL": ({"agentBinding": {"adapter": "mcp", "target": "agent://brew"}}, "/agentBinding/target"),
    "agent without target": ({"agentBinding": {"adapter": "mcp", "target": ""}}, "/agentBinding/target"),
    "agent too deep": (
        {"agentBinding": {"adapter": "mcp", "target": "http://h", "payloadTemplate": nested(32)}},
        "/agentBinding",
    ),
}
