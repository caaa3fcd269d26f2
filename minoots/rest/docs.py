"""The documentation for programs (/openapi.json) and for people (/docs): one page that needs nothing from elsewhere."""

import html
import json
from typing import Any

import msgspec
from litestar.handlers import HTTPRouteHandler

from minoots.rest.answers import Answer, HttpRequest
from minoots.rest.openapi_parts import Document

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem 1.25rem 4rem;
  color: #1b1f24 }
h1 { margin-bottom: 0 } h2 { margin-top: 3rem; border-bottom: 1px solid #d0d7de }
h3 { margin-top: 2.25rem } h3 code { font-size: 1rem }
code, pre { font: 14px/1.45 ui-monospace, Menlo, Consolas, monospace }
pre { background: #f6f8fa; border: 1px solid #d0d7de; border-radius: 6px; padding: .75rem; overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-size: 15px }
th, td { text-align: left; vertical-align: top; padding: .3rem .75rem .3rem 0; border-bottom: 1px solid #eaeef2 }
.method { background: #0b5cad; color: #fff; border-radius: 4px; padding: .1rem .45rem; margin-right: .5rem }
.post, .put, .patch { background: #1a7f37 } nav a { margin-right: 1rem }
a { color: #0b5cad } summary { cursor: pointer }
@media (prefers-color-scheme: dark) {
  body { background: #0d1117; color: #e6edf3 } pre { background: #161b22; border-color: #30363d }
  a { color: #6cb6ff } h2, th, td { border-color: #30363d }
}
"""
_PAGE_HEADERS = (
    (b"content-type", b"text/html; charset=utf-8"),
    (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
)


class DocsRoutes:
    """Both are rendered once."""

    def __init__(self, document: Document, public_url: str) -> None:
        self._json = msgspec.json.encode(document)
        self._page = render_page(document, public_url.rstrip("/")).encode()

    def handlers(self) -> list[HTTPRouteHandler]:
        """Each call under its path."""
        return [
            HTTPRouteHandler("/docs", http_method=["GET", "HEAD"])(self.docs),
            HTTPRouteHandler("/openapi.json", http_method=["GET", "HEAD"])(self.openapi),
        ]

    async def docs(self, request: HttpRequest) -> Answer:
        return Answer(self._page, 200, _PAGE_HEADERS)

    async def openapi(self, request: HttpRequest) -> Answer:
        return Answer(self._json)


def render_page(document: Document, url: str) -> str:
    """The document as one HTML page, with a curl line for each call that works against `url`."""
    info = document["info"]
    calls = [(path, method, call) for path, item in document["paths"].items() for method, call in item.items()]
    parts = [
        f"<h1>{_text(info['title'])} {_text(info['version'])}</h1><p>{_text(info['description'])}</p>",
        "<p>Send your API key as <code>X-API-Key</code> or <code>Authorization: Bearer</code>. The tenant stands in "
        "the body, in <code>?tenantId</code> or in the header <code>x-tenant-id</code>. Errors are problem details "
        '(RFC 9457). For programs: <a href="openapi.json">openapi.json</a>.</p>',
    ]
    for tag in document["tags"]:
        parts.append(f"<h2>{_text(tag['name'].capitalize())}</h2><p>{_text(tag['description'])}</p>")
        parts += [_call(document, url, *call) for call in calls if tag["name"] in call[2]["tags"]]
    parts.append("<h2>Schemas</h2>")
    parts += [_schema(name, schema) for name, schema in sorted(document["components"]["schemas"].items())]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>MINOOTS API</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>'
        f"<body>{''.join(parts)}</body></html>"
    )


def _call(document: Document, url: str, path: str, method: str, call: Document) -> str:
    head = f'<span class="method {method}">{method.upper()}</span>{_text(path)}'
    parts = [f'<h3 id="{_text(call["operationId"])}"><code>{head}</code></h3><p>{_text(call["summary"])}.</p>']
    parameters = [_resolve(document, parameter) for parameter in call["parameters"]]
    if parameters:
        rows = "".join(
            f"<tr><td><code>{_text(p['name'])}</code></td><td>{p['in']}</td><td>{_text(p['description'])}</td></tr>"
            for p in parameters
        )
        parts.append(f"<table><tr><th>Parameter</th><th>In</th><th></th></tr>{rows}</table>")
    parts.append(f"<pre>{_text(curl_line(url, path, method, call))}</pre>")
    rows = ""
    for status, answer in call["responses"].items():
        answer = _resolve(document, answer)
        names = " ".join(_schema_link(content["schema"]) for content in answer["content"].values())
        rows += f"<tr><td><code>{status}</code></td><td>{_text(answer['description'])}</td><td>{names}</td></tr>"
    parts.append(f"<table><tr><th>Answer</th><th></th><th></th></tr>{rows}</table>")
    for content in call["responses"].get("201", call["responses"].get("200"))["content"].values():
        if "example" in content:
            parts.append(f"<details><summary>Example</summary><pre>{_json(content['example'])}</pre></details>")
    return "".join(parts)


def curl_line(url: str, path: str, method: str, call: Document) -> str:
    """The call as it is typed in a shell, with the first example as its body."""
    place = path.replace("{timer_id}", "TIMER_ID").replace("{occurrence}", "1").replace("{name}", "daily-report")
    words = [f"curl {'' if method == 'get' else f'-X {method.upper()} '}{url}{place}"]
    if "security" not in call:
        words.append('-H "X-API-Key: mnt_example"')
    if "requestBody" in call:
        words.append('-H "Content-Type: application/json"')
        shown = next(iter(call["requestBody"]["content"]["application/json"]["examples"].values()))
        words.append(f"-d '{json.dumps(shown['value'], indent=2)}'")
    elif "security" not in call:
        words.append('-H "x-tenant-id: demo"')
    return " \\\n  ".join(words)


def _schema(name: str, schema: Document) -> str:
    text = _text(schema.get("description", ""))
    body = f"<details><summary>JSON Schema</summary><pre>{_json(schema)}</pre></details>"
    return f'<h3 id="schema-{_text(name)}"><code>{_text(name)}</code></h3><p>{text}</p>{body}'


def _schema_link(schema: Document) -> str:
    name = schema.get("$ref", "").rpartition("/")[2]
    return f'<a href="#schema-{_text(name)}">{_text(name)}</a>' if name else ""


def _resolve(document: Document, node: Document) -> Document:
    """The node itself, or what its reference points to."""
    if "$ref" not in node:
        return node
    found: Any = document
    for step in node["$ref"].removeprefix("#/").split("/"):
        found = found[step]
    return dict(found)


def _json(value: object) -> str:
    return _text(value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False))


def _text(value: str) -> str:
    return html.escape(value)
