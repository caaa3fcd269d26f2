"""What an acknowledgement means where it finds a delivery, and whose token is good for what."""

import base64
import itertools
from typing import Any, get_args
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minoots.access.ack_tokens import AckTokens
from minoots.access.keyring import Keyring
from minoots.domain.ack import OUTCOMES, Acknowledgement, AckRequest, AckState, AckStep, admit_ack, judge_ack
from minoots.domain.json_text import read_json
from minoots.domain.limits import ACK_RESULT_BYTES
from minoots.errors import AcknowledgementConflict, InvalidTimer


def said(outcome: Any) -> Acknowledgement:
    return Acknowledgement(outcome, None, None, None)


def state(status: str, outcome: str | None = None, **fields: bool) -> AckState:
    known = {"is_expected": True, "was_sent": True, "is_under_way": False, "is_same": True}
    return AckState(status=status, outcome=outcome, **{**known, **fields})


@pytest.mark.parametrize(
    ("found", "steps"),
    [
        # in the order done, failed, working; None: a contradiction
        (state("awaiting"), ("confirm", "fail", "extend")),
        (state("awaiting", "working"), ("confirm", "fail", "extend")),
        (state("pending", is_under_way=True), ("keep", "keep", "keep")),
        (state("awaiting", "working", is_under_way=True), ("keep", "keep", "keep")),
        (state("awaiting", "done", is_under_way=True), ("repeat", None, None)),
        (state("awaiting", "failed", is_under_way=True), (None, "repeat", None)),
        (state("pending"), ("confirm", "note", "await")),
        (state("pending", "failed"), (None, "repeat", None)),
        (state("overdue", "failed"), (None, "repeat", None)),
        (state("dead", "failed"), (None, "repeat", None)),
        (state("dead"), (None, None, None)),
        (state("confirmed", "done"), ("repeat", None, None)),
        (state("confirmed", "done", is_same=False), (None, None, None)),
        (state("delivered", is_expected=False), (None, None, None)),
        (state("pending", is_expected=False, was_sent=False), (None, None, None)),
    ],
)
def test_what_an_acknowledgement_means(found: AckState, steps: tuple[AckStep | None, ...]) -> None:
    for outcome, step in zip(("done", "failed", "working"), steps, strict=True):
        if step is not None:
            assert judge_ack(found, said(outcome)) == step
            continue
        with pytest.raises(AcknowledgementConflict) as refused:
            judge_ack(found, said(outcome))
        assert refused.value.status == found.status


def test_every_state_has_an_answer() -> None:
    statuses = ("pending", "awaiting", "overdue", "delivered", "confirmed", "dead")
    for status, kept, flags in itertools.product(
        statuses, (None, *OUTCOMES), itertools.product((False, True), repeat=4)
    ):
        expected, sent, under_way, same = flags
        for outcome in OUTCOMES:
            try:
                step = judge_ack(AckState(status, expected, sent, under_way, kept, same), said(outcome))
            except AcknowledgementConflict:
                continue
            assert step in get_args(AckStep)
            assert status in ("pending", "awaiting") or step == "repeat", "what has ended stays as it is"
            assert not (kept == "done" and step != "repeat"), "done is the end"


def test_what_is_said_is_kept_as_it_came() -> None:
    body = b'{"outcome":"done","note":"n","result": {"a": 1.50, "b": [null]} }'
    assert admit_ack(read_json(body, AckRequest)) == Acknowledgement("done", "n", '{"a": 1.50, "b": [null]}', None)
    assert admit_ack(read_json(b'{"outcome":"done","result":null}', AckRequest)).result is None


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (b'{"outcome":"done","extendMs":5}', "/extendMs"),
        (b'{"outcome":"done","result":"%s"}' % (b"x" * ACK_RESULT_BYTES), "/result"),
        (b'{"outcome":"done","result":%s}' % (b"[" * 33 + b"]" * 33), "/result"),
    ],
)
def test_what_is_refused(body: bytes, pointer: str) -> None:
    with pytest.raises(InvalidTimer) as refused:
        admit_ack(read_json(body, AckRequest))
    assert [finding.pointer for finding in refused.value.findings] == [pointer]


# ---- tokens ----

OLD, NEW = b"o" * 32, b"n" * 32


@given(st.text(max_size=60))
def test_no_text_is_a_token_by_chance(text: str) -> None:
    tokens = AckTokens(Keyring([NEW]))
    assert not tokens.is_good(text, "t_1_call")


def test_a_token_is_one_deliverys_and_always_the_same() -> None:
    tokens, timer = AckTokens(Keyring([NEW])), uuid4()
    ids = [f"{timer}_{occurrence}_{action}" for occurrence in (1, 2, 11) for action in ("a", "b", "a~1")]
    issued = {webhook_id: tokens.issue(webhook_id) for webhook_id in ids}
    assert len(set(issued.values())) == len(ids)
    for webhook_id, token in issued.items():
        assert len(base64.urlsafe_b64decode(token + "=")) == 32
        assert AckTokens(Keyring([NEW])).issue(webhook_id) == token
        assert [other for other in ids if tokens.is_good(token, other)] == [webhook_id]
        assert not tokens.is_good(token + "=", webhook_id)


def test_a_token_of_a_former_key_is_good_as_long_as_that_key_is_named() -> None:
    token = AckTokens(Keyring([OLD])).issue("t_1_call")
    assert AckTokens(Keyring([NEW, OLD])).is_good(token, "t_1_call")
    assert AckTokens(Keyring([NEW, OLD])).issue("t_1_call") != token
    assert not AckTokens(Keyring([NEW])).is_good(token, "t_1_call")
