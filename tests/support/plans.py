"""What a statement of the store touches: its plan, with the pages and rows that it really took."""

import json
from dataclasses import dataclass, field
from typing import Any

from tests.support.timers import Sql

TABLES = {"timers", "firings", "deliveries", "outbox", "idempotency_keys"}


@dataclass
class Plan:
    """One statement's plan with what it did: pages touched, rows read, and by which way."""

    pages: int
    read: int = 0
    indexes: set[str] = field(default_factory=set)
    scanned: set[str] = field(default_factory=set)
    sorts: int = 0

    @classmethod
    def of(cls, explained: dict[str, Any]) -> "Plan":
        root = explained["Plan"]
        plan = cls(root["Shared Hit Blocks"] + root["Shared Read Blocks"])
        plan._walk(root)
        return plan

    def _walk(self, node: dict[str, Any]) -> None:
        if "Scan" in node["Node Type"]:
            loops = node["Actual Loops"]
            removed = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
            if node.get("Relation Name") in TABLES:
                self.read += round((node["Actual Rows"] + removed) * loops)
                if node["Node Type"] == "Seq Scan":
                    self.scanned.add(node["Relation Name"])
        if "Index Name" in node:
            self.indexes.add(node["Index Name"])
        self.sorts += "Sort" in node["Node Type"]
        for inner in node.get("Plans", ()):
            self._walk(inner)


class Explaining:
    """Stands where the store expects a connection: it explains each statement for real, and answers nothing."""

    def __init__(self, sql: Sql) -> None:
        self._sql = sql
        self.plans: list[Plan] = []

    async def _explain(self, statement: str, *values: Any) -> None:
        told = await self._sql.fetchval(f"explain (analyze, buffers, format json) {statement}", *values)
        self.plans.append(Plan.of(json.loads(told)[0]))

    async def fetch(self, statement: str, *values: Any) -> list[Any]:
        await self._explain(statement, *values)
        return []

    async def fetchval(self, statement: str, *values: Any) -> None:
        await self._explain(statement, *values)

    async def fetchrow(self, statement: str, *values: Any) -> None:
        await self._explain(statement, *values)

    async def execute(self, statement: str, *values: Any) -> str:
        await self._explain(statement, *values)
        return "DONE 0"

    @property
    def plan(self) -> Plan:
        (only,) = self.plans
        return only


def walks(plan: Plan, *indexes: str, read: int, pages: int) -> None:
    """Fails unless these indexes alone are used, so many rows are read at most, and so many pages touched."""
    assert plan.scanned == set(), plan
    assert plan.indexes == set(indexes), plan
    assert plan.read <= read, plan
    assert plan.pages <= pages, plan
