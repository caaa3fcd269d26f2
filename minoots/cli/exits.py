"""How commands end: the exit codes, and the one way from an error to a sentence on stderr."""

import unicodedata
from typing import Final

from minoots.errors import ClientError, ConfigError, FiringNotFound, MinootsError, TimerNotFound, Unavailable

ENDED_BADLY: Final = 1  # a watched timer failed, was cancelled, or did not end in time
USAGE: Final = 2
NOT_FOUND: Final = 3
REFUSED: Final = 4
UNREACHABLE: Final = 5

# They reorder what stands around them, so a name could forge the line it is printed in (Unicode TR 36, section 2.5).
_REORDERING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


class CommandStopped(Exception):
    """A command cannot go on: what to say (a line or more, without the program's name) and the exit code."""

    def __init__(self, sentence: str, code: int) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.code = code


class Unreachable(CommandStopped):
    """The server is away, or what answers is none of ours."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence, UNREACHABLE)


def misused(sentence: str) -> CommandStopped:
    """The command line itself is wrong."""
    return CommandStopped(sentence, USAGE)


def describe_end(error: MinootsError | CommandStopped) -> tuple[str, int]:
    """The sentence and the exit code of an error."""
    if isinstance(error, CommandStopped):
        return error.sentence, error.code
    if isinstance(error, ConfigError):
        return error.detail, USAGE
    if isinstance(error, TimerNotFound | FiringNotFound):
        return error.detail, NOT_FOUND
    if isinstance(error, ClientError):
        return error.detail, REFUSED
    return error.detail, UNREACHABLE if isinstance(error, Unavailable) else 1


def printable(text: str) -> str:
    """Text of strangers for a terminal: control characters, which could move the cursor or colour what follows, go."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_shown(character) for character in text)


def _shown(character: str) -> str:
    if character in "\n\t":
        return " "
    if unicodedata.category(character) in ("Cc", "Cs") or character in _REORDERING:
        return "\N{REPLACEMENT CHARACTER}"
    return character
