"""Checks of the values in control messages. Pure.

CURVE has proven the sender, and decoding has checked the types. These checks look at each value by
itself. Checks that depend on the job's state (whose task it is, whether it has ended) are the
core's.
"""

import ipaddress
import math
from typing import Any, Callable, Dict, Iterator, Tuple
from urllib.parse import urlsplit

from baryon.ps import Message

from .control import messages

__all__ = ["impossible"]

_MAX_PID = 1 << 30  # proc(5)
_MAX_SIGNAL = 64  # signal(7)
_MAX_NAME = 255  # gethostname(2)
_MAX_GPUS = 1024


def impossible(message: Message) -> str:
    """The first impossible value of a message, such as ``code 256``; empty if there is none."""
    for is_possible, name, value in _CHECKS.get(type(message), lambda message: iter(()))(message):
        if not is_possible:
            text = repr(value)
            return f"{name} {text if len(text) < 200 else text[:200] + '...'}"
    return ""


_Findings = Iterator[Tuple[bool, str, Any]]  # (is it possible, name, value)


def _agent_hello(message: messages.AgentHello) -> _Findings:
    name = message.hostname
    yield 0 < len(name) <= _MAX_NAME and name.isprintable(), "hostname", name
    yield 0 < message.pid <= _MAX_PID, "pid", message.pid
    yield _is_address(message.address), "address", message.address
    yield _is_endpoint(message.endpoint), "endpoint", message.endpoint
    yield len(message.gpus) <= _MAX_GPUS, "number of gpus", len(message.gpus)
    for gpu in message.gpus:  # will be a list in an environment variable, separated by commas
        is_one = 0 < len(gpu) <= _MAX_NAME and gpu.isprintable() and "," not in gpu
        yield is_one, "gpu", gpu


def _output(message: messages.Output) -> _Findings:
    is_whole = message.is_transient or message.data.endswith(b"\n")
    yield is_whole, "end of data", message.data[-20:]


def _exited(message: messages.Exited) -> _Findings:
    yield -_MAX_SIGNAL <= message.code <= 255, "code", message.code
    yield message.code != 0 or not message.error, "error with code 0", message.error
    yield 0.0 <= message.seconds < math.inf, "seconds", message.seconds
    yield message.oom_kills >= 0, "oom_kills", message.oom_kills


def _alive(message: messages.Alive) -> _Findings:
    for position in message.positions:
        least = min(position.store, position.events, *position.at, *position.now)
        yield least >= 0, "position", position


def _join(message: messages.Join) -> _Findings:
    yield 0 < message.pid <= _MAX_PID, "pid", message.pid
    yield not message.endpoint or _is_endpoint(message.endpoint), "endpoint", message.endpoint


def _gather(message: messages.Gather) -> _Findings:
    yield len(message.value) <= messages.MAX_VALUE_NBYTES, "size of value", len(message.value)


def _gone(message: messages.Gone) -> _Findings:
    yield 0 <= message.code <= 255, "code", message.code


_CHECKS: Dict[type, Callable[[Any], _Findings]] = {
    messages.AgentHello: _agent_hello,
    messages.Output: _output,
    messages.Exited: _exited,
    messages.Alive: _alive,
    messages.Join: _join,
    messages.Gather: _gather,
    messages.Gone: _gone,
}


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return True


def _is_endpoint(text: str) -> bool:
    """Whether it is ``tcp://ADDRESS:PORT``; other kinds connect to nothing, or to files."""
    try:
        parts = urlsplit(text)
        has_port = parts.port is not None and parts.port > 0
        address = parts.hostname or ""
    except ValueError:
        return False
    rest = (parts.path, parts.query, parts.fragment, parts.username or "")
    is_plain = parts.scheme == "tcp" and not any(rest) and text.isprintable()
    return is_plain and has_port and _is_address(address)
