"""The standard streams of this process, whatever they were when it was started."""

import os
import sys

__all__ = ["open_streams"]


def open_streams() -> None:
    """Open those that were closed (`>&-`) on /dev/null.

    Otherwise the next file to be opened, perhaps the socket of all agents, would have its number,
    and get what is meant for a terminal.
    """
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(descriptor)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
            assert null == descriptor
            os.set_inheritable(null, True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
