"""Where an agent finds its `AgentConfig`: on its standard input, or in a file of its own."""

import os
import socket
import sys
from typing import NamedTuple, Optional

import msgspec

from ..control import AgentConfig
from .command import config_name

__all__ = ["Found", "complain", "read_config"]


class Found(NamedTuple):
    """A configuration. If ``has_endless_input``, the end of standard input tells nothing."""

    config: AgentConfig
    has_endless_input: bool


def read_config(configs: str = "", index_from: str = "") -> Optional[Found]:
    """This agent's configuration; None if there is none.

    Without ``configs``, it is a line on standard input, and None means that the scheduler ended
    before it wrote one. With ``configs``, it is in a file (`agent_argv`), and standard input is
    replaced; None means that the file cannot be read, and the agent has complained.
    """
    line = _take_file(configs, index_from) if configs else _read_line(sys.stdin.fileno())
    if not line:
        return None
    return Found(msgspec.json.decode(line, type=AgentConfig), bool(configs))


def complain(text: str) -> None:
    """Write to standard error, which the agent's cluster keeps: the scheduler cannot be told."""
    try:
        os.write(2, f"baryon: agent on {socket.gethostname()}: {text}\n".encode())
    except OSError:
        pass  # nothing is left that would read it


def _read_line(descriptor: int) -> bytes:
    """One line, without reading ahead: what follows belongs to the loop."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(descriptor, 1)
        if not byte:
            return b""
        line += byte
    return line


def _take_file(configs: str, index_from: str) -> bytes:
    """The content of this agent's file, which is removed; empty if it cannot be read."""
    try:
        path = os.path.join(configs, config_name(int(os.environ[index_from])))
        with open(path, "rb") as file:
            line = file.read()
    except (KeyError, ValueError, OSError) as error:
        complain(f"cannot read its configuration: {error!r}")
        return b""
    try:
        os.unlink(path)
    except OSError:
        pass  # only the cluster manager may write there
    _have_endless_input()
    return line


def _have_endless_input() -> None:
    """Replace standard input by a pipe whose other end is held by this process and its child."""
    reader, _ = os.pipe()
    os.dup2(reader, 0)
    os.close(reader)
