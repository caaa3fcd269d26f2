"""The adapters that come along."""

from minoots.orchestrator.actions.adapters import Adapter
from minoots.orchestrator.actions.adapters.bus import Bus
from minoots.orchestrator.actions.adapters.envelope import EnvelopeAdapter
from minoots.orchestrator.actions.adapters.langchain import LangChainAdapter
from minoots.orchestrator.actions.adapters.mcp import McpAdapter
from minoots.orchestrator.actions.webhook import WebhookRunner


def built_in(webhooks: WebhookRunner, bus: Bus | None) -> dict[str, Adapter]:
    """One of each by name; without `bus` there is nowhere for `nats:` targets to go."""
    envelopes = EnvelopeAdapter(webhooks, bus)
    return {
        "mcp": McpAdapter(webhooks),
        "langchain": LangChainAdapter(webhooks),
        "autogen": envelopes,
        "custom": envelopes,
    }
