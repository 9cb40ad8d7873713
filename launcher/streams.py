"""Makes sure that this process has all three standard streams."""

import os
import sys

__all__ = ["open_streams"]


def open_streams() -> None:
    """Open streams that were closed (`>&-`) on /dev/null.

    Otherwise the next opened file, perhaps the agents' socket, would get the stream's number, and
    messages for a terminal would go there.
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
