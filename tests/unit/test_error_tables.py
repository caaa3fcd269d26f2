"""Every error has its words at both doors."""

import grpc
import pytest

from minoots.errors import ClientError, MinootsError, Unavailable
from minoots.rest import problems
from minoots.rpc import status


def leaves(kind: type[MinootsError]) -> set[type[MinootsError]]:
    below = kind.__subclasses__()
    return {kind} if not below else set().union(*(leaves(one) for one in below))


LEAVES = sorted(
    (leaf for leaf in leaves(MinootsError) if leaf.__module__ == "minoots.errors"), key=lambda e: e.__name__
)


@pytest.mark.parametrize("leaf", LEAVES)
def test_every_error_has_an_http_status(leaf: type[MinootsError]) -> None:
    code = problems.STATUS_OF[leaf]
    if issubclass(leaf, ClientError):
        assert 400 <= code < 500
    elif issubclass(leaf, Unavailable):
        assert code == 503
    else:
        assert code == 500


@pytest.mark.parametrize("leaf", LEAVES)
def test_every_error_has_a_grpc_status(leaf: type[MinootsError]) -> None:
    code = status.STATUS_OF[leaf]
    assert isinstance(code, grpc.StatusCode)
    assert code not in (grpc.StatusCode.OK, grpc.StatusCode.UNKNOWN)
    assert (code is grpc.StatusCode.UNAVAILABLE) == issubclass(leaf, Unavailable)


def test_no_two_errors_share_a_problem_type() -> None:
    names = [problems.kebab(leaf.__name__) for leaf in LEAVES]
    assert len(set(names)) == len(names)
    assert problems.kebab("TimerNotFound") == "timer-not-found"
