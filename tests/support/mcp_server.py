"""A real MCP server as a process of its own: `python -m tests.support.mcp_server PORT [only]`.

Every call of a tool is a JSON line on standard output; with `only` it has one tool.
"""

import json
import sys
from typing import Any

from mcp.server.fastmcp import Context, FastMCP

server = FastMCP("agent", host="127.0.0.1", port=int(sys.argv[1]), log_level="ERROR")
_calls = 0


def tell(tool: str, arguments: dict[str, Any], context: Context[Any, Any, Any]) -> None:
    request = context.request_context
    headers = {name: value for name, value in request.request.headers.items() if name.startswith(("webhook", "x-"))}
    meta = {} if request.meta is None else request.meta.model_dump()
    print(json.dumps({"tool": tool, "arguments": arguments, "headers": headers, "meta": meta}), flush=True)


@server.tool()
def remind(order: int, text: str, context: Context[Any, Any, Any]) -> str:
    """Remember an order."""
    tell("remind", {"order": order, "text": text}, context)
    return f"reminded of {order}"


if "only" not in sys.argv:

    @server.tool()
    def flaky(prompt: str, context: Context[Any, Any, Any]) -> str:
        """Fail the first time."""
        global _calls
        _calls += 1
        tell("flaky", {"prompt": prompt}, context)
        if _calls == 1:
            raise RuntimeError("the model is away")
        return "done at last"


server.run("streamable-http")
