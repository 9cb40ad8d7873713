"""Reads the answers of our programs on hosts.

A program begins each answer with a mark of its own, because the host's login scripts may print
before it. An answer is one line: the mark, and a JSON object.
"""

import json
from typing import Any, Callable, Dict

from baryon.ps import PeerError, ProtocolError

__all__ = ["NoAnswer", "read_answer"]

_MAX_NOISE = 10_000  # lines of login scripts
_MAX_SHOWN = 200


class NoAnswer(PeerError):
    """The program ended before it answered."""


def read_answer(readline: Callable[[], bytes], mark: bytes, about: str) -> Dict[str, Any]:
    """The next answer. ``readline`` returns the program's next line, empty at its end.

    Raises NoAnswer at the end, PeerError if the connection breaks, ProtocolError if this is no
    answer. Their messages say that the answer is ``about`` something.
    """
    noise = ""
    for _ in range(_MAX_NOISE):
        try:
            line = readline()
        except OSError as error:
            raise PeerError(f"no answer about {about}: {error}") from error
        if not line:
            last = f"; its last line was {noise!r}" if noise else ""
            raise NoAnswer(
                f"its Python ended without an answer about {about}{last}; check that "
                "python3 -c pass works there"
            )
        if line.startswith(mark):
            return _decoded(line[len(mark) :], about)
        noise = line.decode(errors="replace").strip()[:_MAX_SHOWN] or noise
    raise ProtocolError(f"its login scripts print without end: {noise!r}")


def _decoded(data: bytes, about: str) -> Dict[str, Any]:
    try:
        answer = json.loads(data.decode("ascii"))
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise ProtocolError(f"garbled answer about {about}: {data[:_MAX_SHOWN]!r}")
    return answer
