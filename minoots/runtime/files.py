"""How many files and sockets this process may have open."""

import contextlib
import resource

# Enough for anything here, and what walks over all numbers before it starts a command still ends.
ENOUGH = 65_536
# For the database, the broker, doors, commands, and what Python has open itself.
KEPT = 200


def raise_limit() -> None:
    """Use what the system allows this user: the limit that a shell begins with is often 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ENOUGH if hard == resource.RLIM_INFINITY else min(hard, ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        # Some sandboxes and macOS refuse what they said they allow: then it stays as it is.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def connections_possible() -> int:
    """How many connections there can be beside everything else."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return ENOUGH if soft == resource.RLIM_INFINITY else max(soft - KEPT, 2)
