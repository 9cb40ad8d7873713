"""Files that are complete at any time."""

import contextlib
import os
from typing import Iterator

__all__ = ["replacing"]


@contextlib.contextmanager
def replacing(path: str) -> Iterator[str]:
    """A temporary path to write to; its file replaces ``path`` when the block ends.

    At any time, also after a crash, ``path`` is the old file or the complete new one. If the block
    raises, the old file stays and the temporary one is removed.
    """
    temporary = f"{path}.{os.getpid()}.part"
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise
