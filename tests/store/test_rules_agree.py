"""The rules in Python and the CHECKs of the schema refuse the same: a table of edges, and whatever hypothesis finds."""

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import asyncpg
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minoots.domain.action import check_action_bundle, check_agent_binding
from minoots.domain.json_text import read_json
from minoots.domain.timer import TimerRequest, admit
from minoots.errors import ClientError
from tests.support.edges import BINDINGS, BUNDLES, LABELS
from tests.support.rules import BAD, calling

EXAMPLES = settings(max_examples=300)


class Sql:
    """One connection and the loop it belongs to: hypothesis calls plain functions."""

    def __init__(self, url: str, runner: asyncio.Runner) -> None:
        self._runner = runner
        self._connection = runner.run(asyncpg.connect(url))

    def holds(self, condition: str, value: Any) -> bool:
        """Whether a CHECK would let the value in: null counts as true there."""
        text = json.dumps(value)
        return self._runner.run(self._connection.fetchval(f"select coalesce({condition}, true)", text))

    def takes(self, text: str) -> bool:
        """Whether Postgres can store the JSON at all."""
        try:
            self._runner.run(self._connection.fetchval("select $1::jsonb", text))
        except asyncpg.DataError:
            return False
        return True

    def close(self) -> None:
        self._runner.run(self._connection.close())


@pytest.fixture(scope="module")
def sql(module_database_url: str) -> Iterator[Sql]:
    with asyncio.Runner() as runner:
        opened = Sql(module_database_url, runner)
        yield opened
        opened.close()


def admits(check: Callable[[bytes], None], value: Any) -> bool:
    try:
        check(json.dumps(value).encode())
    except ClientError:
        return False
    return True


def bundle_agrees(sql: Sql, bundle: Any) -> bool:
    """Fails unless both say the same of the bundle; what they say."""
    python = admits(check_action_bundle, bundle)
    assert sql.holds("minoots.is_action_bundle($1::jsonb)", bundle) is python, json.dumps(bundle)[:500]
    return python


# ---- tables ----


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda bundle: json.dumps(bundle)[:80])
def test_both_say_the_same_of_a_bundle(bundle: Any, sql: Sql) -> None:
    if bundle is None:
        return  # null is no bundle at all, at both
    bundle_agrees(sql, bundle)


def test_the_table_of_bundles_has_good_and_bad_ones(sql: Sql) -> None:
    said = [bundle_agrees(sql, bundle) for bundle in BUNDLES if bundle is not None]
    assert said.count(True) > 60
    assert said.count(False) > 120


@pytest.mark.parametrize("binding", BINDINGS, ids=lambda binding: json.dumps(binding)[:80])
def test_both_say_the_same_of_an_agent_binding(binding: Any, sql: Sql) -> None:
    if binding is not None:
        assert sql.holds("minoots.is_agent_binding($1::jsonb)", binding) is admits(check_agent_binding, binding)


def admits_field(**fields: Any) -> bool:
    body = json.dumps({"requestedBy": "ann", "duration": "1s"} | fields).encode()
    return admits(lambda text: admit(read_json(text, TimerRequest)) and None, json.loads(body))


@pytest.mark.parametrize("labels", LABELS, ids=lambda labels: json.dumps(labels)[:80])
def test_both_say_the_same_of_labels(labels: Any, sql: Sql) -> None:
    assert sql.holds("minoots.is_labels($1::jsonb)", labels) is admits_field(labels=labels)


@pytest.mark.parametrize("deep", [1, 31, 32, 33, 34, 60])
@pytest.mark.parametrize("kind", ["objects", "lists", "strings full of brackets"])
def test_both_count_the_same_depth(deep: int, kind: str, sql: Sql) -> None:
    value: Any = "{" * 40 if kind == "strings full of brackets" else 1
    for _ in range(deep - 1):
        value = [value] if kind == "lists" else {"[[": value}
    metadata = {"a": value}
    assert sql.holds("minoots.is_json_shallow($1::jsonb)", metadata) is (deep <= 32)
    assert admits_field(metadata=metadata) is (deep <= 32)


@pytest.mark.parametrize("bad", BAD)
def test_the_shared_table_is_refused_by_the_rules_too(bad: str) -> None:
    fields, pointer = BAD[bad]
    if bad == "metadata too large as Postgres writes it":
        assert admits_field(**fields), "only the schema can know this"
        return
    body = json.dumps({"requestedBy": "ann", "duration": "1s"} | fields).encode()
    with pytest.raises(ClientError) as refused:
        admit(read_json(body, TimerRequest))
    assert [finding.pointer for finding in refused.value.findings] == [pointer]


# ---- whatever hypothesis finds ----

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6)
SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(0, 2000) | TEXT
JUNK = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=6
)
# A URL put together from what is special in one.
URL_PARTS = st.sampled_from(
    ["http", "https", "HTTP", "://", ":", "/", "//", "?", "#", "@", "[", "]", "[::1]", "::", "1", "80", "65536", "h",
    "h.x",
     "%", "\\", " ", "\t", "\x7f", "\x85", "\u00a0", "\u2003", "\u2100", "\uff0f", "é", ".", "-", "_", "ff", "1.2.3.4"]
)  # fmt: skip
URL_TEXT = st.lists(URL_PARTS, max_size=9).map("".join)
SOME_URLS = (
    URL_TEXT
    | URL_TEXT.map("http://".__add__)
    | st.from_regex(r"http://\[[0-9a-f:.]{1,14}\](:[0-9]{1,6})?/?", fullmatch=True)
)
NAMES = st.sampled_from(["host", "te", "x", "webhook-", "proxy-", "Cookie"]) | st.text(
    st.characters(max_codepoint=0x17F, exclude_characters="\0"), max_size=5
)
FIELD_VALUES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6)


def mostly(good: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Good most of the time, so that the rest of the bundle is looked at too."""
    return st.integers(0, 9).flatmap(lambda n: JUNK if n == 0 else good)


WEBHOOKS = st.fixed_dictionaries(
    {"url": mostly(st.just("http://h/x") | SOME_URLS)},
    optional={
        "method": mostly(st.sampled_from(["GET", "POST", "PATCH"])),
        "headers": mostly(st.dictionaries(NAMES, FIELD_VALUES | JUNK, max_size=2)),
        "body": JUNK,
        "timeoutMs": mostly(st.integers(-1, 130_000)),
    },
)
DEED = {
    "kind": mostly(st.sampled_from(["webhook", "command", "agent_prompt", "workflow_event"])),
    "parameters": mostly(WEBHOOKS | st.dictionaries(TEXT, JUNK, max_size=2)),
}
ACTION_IDS = mostly(st.text(st.sampled_from("aZ09_-"), min_size=1, max_size=4))
ESCALATIONS = st.deferred(
    lambda: (
        st.none()
        | mostly(
            st.fixed_dictionaries(
                {
                    "afterAttempts": mostly(st.integers(0, 1001)),
                    "escalatesTo": mostly(
                        st.fixed_dictionaries(DEED, optional={"id": ACTION_IDS, "escalation": ESCALATIONS})
                    ),
                }
            )
        )
    )
)
SOME_ACTIONS = st.fixed_dictionaries({"id": ACTION_IDS} | DEED, optional={"escalation": ESCALATIONS})
POLICIES = st.fixed_dictionaries(
    {},
    optional={
        name: mostly(st.integers(-1, 1001) | st.floats(0, 1001) | st.integers(31_535_999_999, 31_536_000_001))
        for name in ("maxAttempts", "maxAgeMs", "backoffInitialMs", "backoffMultiplier", "backoffMaxMs")
    },
)
SOME_BUNDLES = st.fixed_dictionaries(
    {"actions": mostly(st.lists(mostly(SOME_ACTIONS), max_size=3))},
    optional={"concurrency": mostly(st.integers(0, 17)), "retryPolicy": mostly(POLICIES)},
)
SUBJECTS = st.text(st.sampled_from("aZ9_-.*> "), max_size=8).map("nats:".__add__)
TEMPLATES = st.lists(
    st.sampled_from(["{", "}", "{{", "}}", " ", "timer", "ack", ".", "a", "é", "\n", "{{timer.a}}"]), max_size=8
).map("".join)
SOME_BINDINGS = st.fixed_dictionaries(
    {"adapter": mostly(st.sampled_from(["mcp", "custom", "acme.crew"])), "target": mostly(TEXT | URL_TEXT | SUBJECTS)},
    optional={"payloadTemplate": JUNK | TEMPLATES, "acknowledgementTimeoutMs": mostly(st.integers(-1, 31_536_000_001))},
)


@EXAMPLES
@given(bundle=SOME_BUNDLES)
def test_no_bundle_is_found_that_they_see_differently(bundle: Any, sql: Sql) -> None:
    bundle_agrees(sql, bundle)


@EXAMPLES
@given(url=SOME_URLS)
def test_no_url_is_found_that_they_see_differently(url: str, sql: Sql) -> None:
    bundle_agrees(sql, calling(url=url))


@EXAMPLES
@given(name=NAMES, value=FIELD_VALUES)
def test_no_header_is_found_that_they_see_differently(name: str, value: str, sql: Sql) -> None:
    bundle_agrees(sql, calling(headers={name: value}))


@EXAMPLES
@given(binding=SOME_BINDINGS)
def test_no_agent_binding_is_found_that_they_see_differently(binding: Any, sql: Sql) -> None:
    assert sql.holds("minoots.is_agent_binding($1::jsonb)", binding) is admits(check_agent_binding, binding)


@EXAMPLES
@given(labels=st.dictionaries(TEXT, TEXT | JUNK, max_size=3) | JUNK.filter(lambda value: value is not None))
def test_no_labels_are_found_that_they_see_differently(labels: Any, sql: Sql) -> None:
    assert sql.holds("minoots.is_labels($1::jsonb)", labels) is admits_field(labels=labels)


@EXAMPLES
@given(metadata=st.dictionaries(st.text(max_size=6), st.recursive(
    SCALARS | st.text(max_size=6) | st.floats(), lambda inner: st.lists(inner, max_size=3), max_leaves=4), max_size=3),
    ascii_only=st.booleans())  # fmt: skip
def test_whatever_metadata_the_rules_admit_postgres_can_keep(metadata: Any, ascii_only: bool, sql: Sql) -> None:
    """Else a request would end in a driver's error: surrogate halves, NaN, NUL, infinities."""
    text = json.dumps(metadata, ensure_ascii=ascii_only)
    try:
        body = f'{{"requestedBy":"ann","duration":1,"metadata":{text}}}'.encode()
    except UnicodeEncodeError:
        return  # a surrogate half that is not escaped is no UTF-8
    try:
        admitted = admit(read_json(body, TimerRequest))
    except ClientError:
        return
    assert admitted.metadata == text
    assert sql.takes(text)
    assert msgspec.json.decode(text) == metadata
