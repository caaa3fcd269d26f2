"""MINOOTS, a durable timer service.

    scheduled ──due──> fired ──its actions end──> settled | failed
        │  │           └──an answer snoozes it──> scheduled
        │  └─ without actions it ends at fired
        ├──pause──> paused ──resume──> scheduled
        └──cancel─> cancelled

Folders, from the outside in: `cli` and `wiring` put things together; `rest` and `rpc` are the doors; `kernel` fires,
`relay` publishes, `orchestrator` delivers; `access` says who may; `service` has the rules around a transaction; `store`
has every SQL statement; `broker` is the way to NATS; `domain` is pure. `runtime` runs loops and processes, `embedded`
brings servers for a machine without them, `telemetry` sets logging up. One timer's way is in docs/architecture.md.
"""

__version__ = "0.1.0"
