"""Worker 0's settings of one store, counted: its optimizers and their hyper-parameters. Pure."""

from typing import Optional

from ..errors import ProtocolError

__all__ = ["Settings"]


class Settings:
    """``last`` is the serial number of the last SetUpdater or SetHyper, and ``version`` the last
    version of the hyper-parameters."""

    def __init__(self) -> None:
        self.last = 0
        self.version = 0

    def is_new(self, serial: int) -> bool:
        """Count a setting; False if it is a repeat, which must do nothing."""
        if not 0 < serial <= self.last + 1:
            raise ProtocolError(f"setting number {serial} came after number {self.last}")
        is_new = serial > self.last
        self.last = max(self.last, serial)
        return is_new

    def next_version(self, version: int, oldest: int) -> None:
        """A SetHyper makes the next version; raises ProtocolError unless it is the next."""
        if version != self.version + 1 or not 0 <= oldest <= version:
            raise ProtocolError(
                f"version {version} of the hyper-parameters came after {self.version}, with "
                f"{oldest} as the oldest"
            )
        self.version = version

    def check_version(self, name: str, is_first: bool, version: Optional[int]) -> None:
        """Raise ProtocolError if the child ``name`` may not name a version in a push: only worker 0
        may (``is_first``), and only one that exists."""
        if version is None or (is_first and 0 <= version <= self.version):
            return
        raise ProtocolError(
            f"{name} named version {version} of the hyper-parameters, and the last one is "
            f"{self.version}; only rank 0's counts"
        )
