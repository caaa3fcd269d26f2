"""Bundles, bindings and labels at the edges of their rules, good and bad; nobody says here which is which."""

from typing import Any

from tests.support.rules import WHOLE, acting, calling, nested

URLS = [
    "http://h", "HTTPS://H.example:8080/", "http://h:80/x?y#z", "http://h:080/", "http://h:000001/", "http://h:65535",
    "http://h:65536", "http://h:0/", "http://h:/", "http://h:1:2/", "http://", "http:///x", "http://?x", "http:/h",
    "//h",
    "ftp://h", "http://u@h/", "http://u:p@h/", "http://h/u@h", "http://h?u@h", "http://h#u@h", "http://h\\x",
    "http://h/\\",
    "http://h/a b", " http://h", "http://h ", "http://h/\n", "http://h\t/", "http://h/\x7f", "http://h/\x80",
    "http://h/\u00a0",
    "http://h\u00a0/", "http://h/\u2003", "http://h\u3000x/", "http://h/\u2028", "http://bücher.example/ß",
    "http://h/é",
    "http://h\u2100x/", "http://h\uff0fx/", "http://h\uff20x/", "http://h\uff1a80/", "http://ｈ/", "http://h／x@y/",
    "http://[::1]", "http://[::1]:80/", "http://[::1]x/", "http://a[::1]/", "http://[::1", "http://::1/", "http://[]/",
    "http://[:::]/", "http://[1]/", "http://[1.2.3.4]/", "http://[::ffff:1.2.3.4]/", "http://[::1.2.3.999]/",
    "http://[1:2:3:4:5:6:7:8]/", "http://[1:2:3:4:5:6:7:8:9]/", "http://[1:2:3:4:5:6:7]/", "http://[00001::]/",
    "http://[0::0::0]/", "http://[::g]/", "http://[fe80::1%25eth0]/", "http://[v1.x]/", "http://[::1/64]/",
    "http://h[/",
    "http://%41/", "http://.", "http://h/%zz", "http://h|<>", "http://h;x,y", "http://h:１/", "ｈttp://h/", "httpſ://h/",
    "http://" + "h" * 2041, "http://" + "h" * 2042, "", "x", "javascript:alert(1)",
]  # fmt: skip

PARAMETERS = [
    {}, {"url": None}, {"url": 3}, {"url": "http://h", "uri": 1},
    *({"url": "http://h", "method": method} for method in ("GET", "DELETE", "get", "TRACE", "", None, 1, ["GET"])),
    *({"url": "http://h", "timeoutMs": t} for t in (1, 0, -1, 120_000, 120_001, 1.0, 1.5, 1e3, True, "1", None, [],
    10**12)),
    *({"url": "http://h", "acknowledgementTimeoutMs": n} for n in (
        1, 0, -1, 31_536_000_000, 31_536_000_001, 1.0, 1.5, "1", True, None, [], {})),
    *({"url": "http://h", "acceptDirectives": leave} for leave in (True, False, None, 1, "yes", [], {})),
    *({"url": "http://h", "body": body} for body in (None, "", [], {"a": [1]}, False, nested(20))),
    *({"url": "http://h", "headers": headers} for headers in ({}, None, [], "a", {"a": "b"}, {"a": 1}, {"a": None},
    {"": "b"},
        {"a": ["b"]}, {"a": []}, {"a": {}}, {"a": [1]}, {"a": True})),
    *({"url": "http://h", "headers": {name: "x"}} for name in (
        "Host", "HOST", "hosts", "Content-Length", "transfer-encoding", "connection", "Cookie", "cookie2", "upgrade",
        "te",
        "tea", "trailer", "webhook-id", "webhook", "Webhook-", "proxy-x", "x-minoots-x", "x-minoots", "a b", "a:b", "ä",
        "a\n", "!#$%&'*+.^_`|~0-9aZ-", "x" * 256, "x" * 257, "K", "(", "hoſt",
    )),
    *({"url": "http://h", "headers": {"x": text}} for text in (
        "", "a\tb", "a\nb", "a\rb", "\x1f", "\x7f", "\x80", "é", "\uffff", "😀", "x" * 8192, "x" * 8193, " a ", "\x08",
        "\x0b",
    )),
]  # fmt: skip

_COMMAND = {"kind": "command", "parameters": {}}


def _escalating(deep: int) -> dict[str, Any]:
    """A command that escalates so many times in a row."""
    more = {"escalation": {"afterAttempts": 1, "escalatesTo": _escalating(deep - 1)}} if deep else {}
    return _COMMAND | more


PROMPTS: list[Any] = [
    {}, {"x": 1}, {"adapter": None, "target": None}, {"adapter": "mcp"}, {"target": "http://h"},
    *({"adapter": "custom", "target": target} for target in ("http://h", "nats:a", "t", 1)),
    {"adapter": "acme.crew", "target": "t"}, {"adapter": "smtp", "target": "http://h"},
    *({"payloadTemplate": value} for value in (None, {}, "{{x}}", {"a": "{{timer}}"}, [["{{"]])),
    *({"prompt": value} for value in (None, "", "x", "{{timer.name}}", "{{x}}", 1, {})),
    {"prompt": "x", "payloadTemplate": None}, {"prompt": "x", "payloadTemplate": {}},
    {"prompt": None, "payloadTemplate": 1},
    *({"timeoutMs": n} for n in (0, 1, 120_000, 120_001, 1.5, 1.0, "1", None, True)),
    *({"acknowledgementTimeoutMs": n} for n in (0, 1, 31_536_000_000, 31_536_000_001, "1", None)),
    *({"headers": h} for h in (None, {}, [], {"a": "b"}, {"a": 1}, {"host": "x"}, {"a": "\n"}, {"a b": "x"})),
]  # fmt: skip

WORKFLOW_EVENTS: list[Any] = [
    *({"name": name} for name in (
        "a", "order.overdue", "0-_.A", "a" * 128, "a" * 129, "", "a.", ".a", "a..b", "a b", "a*", ">", "a.-b", "_a",
        "é", "a\n", 1, None,
    )),
    *({"name": "a", "payload": value} for value in (None, 0, "{{x}}", [], {"a": None})),
    *({"name": "a", "payloadTemplate": value} for value in (None, "{{timer.name}}", {"a": "{{x}}"})),
    {"name": "a", "payload": None, "payloadTemplate": 1}, {"name": "a", "payload": 1, "payloadTemplate": None},
    {"name": "a", "payload": 1, "payloadTemplate": 1}, {"name": "a", "payload": {"a": None}, "payloadTemplate": {}},
    *({"name": "a", "endpoint": url} for url in (
        None, "", "http://h", "ftp://h", "http://a@h", 1, "http://h/" + "x" * 2040,
    )),
    {"name": "a", "x": 1}, {},
]  # fmt: skip

ACTIONS = [
    {}, [], None, "x",
    *({"id": name, "kind": "command", "parameters": {}} for name in (
        "a", "", "-a", "_a", "a-_9", "agent", "Agent", "a" * 63, "a" * 64, "a\n", "é", "a b", "a~1", 1, None,
    )),
    *({"id": "a", "kind": "agent_prompt", "parameters": parameters} for parameters in PROMPTS),
    *({"id": "a", "kind": "workflow_event", "parameters": parameters} for parameters in WORKFLOW_EVENTS),
    *({"id": "a", "kind": kind, "parameters": {}} for kind in (
        "acme.page", "acme.Page", "agent_prompt", "workflow_event", "email", "", None, 1,
    ["command"])),
    *({"id": "a", "kind": "command", "parameters": parameters} for parameters in (None, [], "x", {"": 1}, {"url": 1})),
    *({"id": "a", "kind": "command", "parameters": {}, "escalation": e} for e in (
        None, {}, False, [], {"afterAttempts": 1}, {"escalatesTo": _COMMAND}, {"afterAttempts": 1, "escalatesTo": None},
        *({"afterAttempts": n, "escalatesTo": _COMMAND} for n in (0, 1, 999, 1000, 1001, 1.0, 1.5, -1, "1", None)),
        {"afterAttempts": True, "escalatesTo": _COMMAND},
        *({"afterAttempts": 1, "escalatesTo": to} for to in (
            _COMMAND | {"id": "a"}, _COMMAND | {"id": None}, _COMMAND | {"id": "agent"}, _COMMAND | {"id": "a~1"},
            _COMMAND | {"id": 1}, _COMMAND | {"x": 1}, _COMMAND | {"kind": "email"}, {"kind": "command"}, {}, [], "x",
            {"kind": "webhook", "parameters": {}}, {"kind": "webhook", "parameters": {"url": "http://h"}},
            {"kind": "webhook", "parameters": {"url": "http://h", "headers": {"host": "x"}}},
        )),
        {"afterAttempts": 1, "escalatesTo": _COMMAND, "x": 1},
    )),
    *({"id": "a"} | _escalating(deep) for deep in (2, 3, 4, 5, 6)),
    {"id": "a", "kind": "command"}, {"id": "a", "kind": "command", "parameters": {}, "x": 1}, {"id": "a",
    "parameters": {}},
]  # fmt: skip

NUMBERS = [
    0,
    1,
    -1,
    16,
    17,
    1000,
    1001,
    31_536_000_000,
    31_536_000_001,
    1.0,
    1.5,
    0.5,
    999.9,
    1e3,
    1e300,
    "1",
    True,
    None,
    [],
    [2],
    [[]],
    {},
]

BUNDLES: list[Any] = [
    {}, [], None, 1, "x", True, {"actions": None}, {"actions": {}}, {"actions": "x"}, {"actions": [None]},
    {"actions": [[]]},
    {"actions": [], "x": 1}, {"actions": [], "retryPolicy": []}, {"actions": [], "retryPolicy": {}}, {"actions": [],
    "": 1},
    {"actions": [], "retryPolicy": None}, {"actions": [], "retryPolicy": "x"}, {"actions": [],
    "retryPolicy": {"x": None}},
    {"actions": [acting(id=f"a{n}")["actions"][0] for n in range(16)]},
    {"actions": [acting(id=f"a{n}")["actions"][0] for n in range(17)]},
    {"actions": acting()["actions"] * 2}, {"actions": [*acting()["actions"], *acting(id="A")["actions"]]},
    *({"actions": [], "concurrency": n} for n in NUMBERS),
    *({"actions": [], "retryPolicy": {name: n}} for n in NUMBERS for name in (
        "maxAttempts", "maxAgeMs", "backoffInitialMs", "backoffMultiplier", "backoffMaxMs")),
    *({"actions": [action]} for action in ACTIONS),
    *(calling() | {"actions": [{"id": "a", "kind": "webhook", "parameters": p}]} for p in PARAMETERS),
    *(calling(url=url) for url in URLS),
    WHOLE["actionBundle"],
]  # fmt: skip

TEMPLATES: list[Any] = [
    None, 1, "", [], {"a": 1}, "{{timer.name}}", "{{ timer }} x", "{{timer.}}", "{{timer.a b}}", "{{timr}}", "{{", "}}",
    "{{{{", "{{{", "{{{{{", "{{{{timer}}", "{{{timer}}}", "{{timer}}}", "{ {", "a{{ack.url}}b{{event.id}}",
    {"{{": 1}, {"a": [{"b": "{{"}]}, {"a": [{"b": "{{firing.dueAt}}"}]}, "{{timer.für}}", "{{timer.a\n}}",
    "{{timer}}\n",
    "\n{{delivery.webhookId}}", "{{timer.😀.0}}", "{{timer.a{b}}", "{\n{", "x" * 1000 + "{{timer}}" * 100,
]  # fmt: skip

TARGETS: list[Any] = [
    "", "t", "http://h", "HTTPS://h:8080/x?y#z", "http://h/" + "t" * 2039, "http://h/" + "t" * 2040, None, 1, {},
    "http://h#", "http://h#tool", "http://h#a/b.c-d_e", "http://h#a b", "http://h#é", "http://h#a#b",
    "http://h#" + "x" * 128, "http://h#" + "x" * 129, "nats:a", "nats:a.b-c_D", "nats:", "nats:.a", "nats:a.",
    "nats:a..b", "nats:a.*", "nats:a.>",
    "nats:a b", "nats:a\n", "nats:é", "NATS:a", "nats:" + ".".join("abcdefgh"), "nats:" + ".".join("abcdefghi"),
    "nats:" + "a" * 64, "nats:" + "a" * 65, "nats://h", "agent://brew", "http://ann@h", "http://é.example",
]  # fmt: skip

ADAPTERS: list[Any] = [
    "mcp", "langchain", "autogen", "custom", "MCP", "", None, 1, ["mcp"], "acme.crew", "acme", "Acme.crew", "acme.",
    ".a", "a.b.c.d", "a.b.c.d.e", "acme.crew\n", "a" * 31 + ".b", "a" * 32 + ".b", "a." + "b" * 31, "a." + "b" * 32,
    "1.a", "a.1",
]  # fmt: skip

BINDINGS: list[Any] = [
    {}, [], None, "x", WHOLE["agentBinding"],
    *({"adapter": adapter, "target": "http://h"} for adapter in ADAPTERS),
    *({"adapter": adapter, "target": target} for target in TARGETS for adapter in ("mcp", "custom", "acme.crew")),
    *({"adapter": "mcp", "target": "http://h", "acknowledgementTimeoutMs": n} for n in NUMBERS),
    *({"adapter": "mcp", "target": "http://h", "payloadTemplate": value} for value in TEMPLATES),
    {"adapter": "mcp", "target": "http://h", "x": None}, {"adapter": "mcp"}, {"target": "http://h"},
]  # fmt: skip

LABELS: list[Any] = [
    {}, [], "x", 1, {"": "x"}, {"k" * 63: "x"}, {"k" * 64: "x"}, {"é" * 63: "x"}, {"k": "x" * 255}, {"k": "x" * 256},
    {"k": "é" * 255}, {"k": "😀" * 255}, {"k": "😀" * 256}, {"k": ""}, {"k": None}, {"k": 1}, {"k": {}}, {"k": ["x"]},
    {str(n): "" for n in range(64)}, {str(n): "" for n in range(65)}, {" ": " "}, {"a:b": "c"}, {"a\n": "\t"},
]  # fmt: skip
