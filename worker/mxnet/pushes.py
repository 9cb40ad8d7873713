"""Who is told of each push before it is queued: the scheduler, the servers' optimizer, the user."""

from typing import Optional

from baryon.ps import Compression, StoreClient

from ..advice import advice
from ..session import Session
from ..track import Track
from .arguments import KeyName
from .remote_optimizer import RemoteOptimizer

__all__ = ["Pushes"]


class Pushes:
    """Those of one store. It must not refer to the KVStore, which is closed when dropped."""

    def __init__(self, session: Session, track: Track, remote: RemoteOptimizer) -> None:
        self.compression: Optional[Compression] = None
        self.have_begun = False
        self._session = session
        self._track = track
        self._remote = remote

    def count(self, name: KeyName, store: StoreClient) -> Optional[int]:
        """Count a push of a key; returns the version of the optimizer's attributes to apply it
        with, or None. Called under the lock of the store's keys."""
        self._track.push()
        if not self.have_begun:
            self.have_begun = True
            said = advice(self._session.credentials, self.compression, store.keys)
            self._session.say_once(*said)
        return self._remote.count(name, store)
