"""A server that owns parameters: it applies the optimizer and answers by itself.

Runs in the server's reactor thread.
"""

from typing import Any, Callable, List

from .. import wire
from ..compression import Compression
from ..errors import ProtocolError
from ..memory import staging
from ..plan import Plan
from ..updater import load_updater
from .async_store import AsyncStore
from .slot import Reply
from .store import Store
from .sync_store import SyncStore
from .table import Opened
from .upstream import Site, Upstream, check_kind

__all__ = ["Owner"]


class Owner(Upstream):
    """``may_run_code``: an optimizer is known to come from worker 0, so it may contain code of the
    user's."""

    def __init__(
        self, site: Site, on_accepted: Callable[[wire.Accepted], None], may_run_code: bool
    ) -> None:
        super().__init__(site, on_accepted)
        self._may_run_code = may_run_code

    def open(self, message: wire.Open) -> Opened:
        site = self._site
        _, values = staging(site.memory, message.store)
        where = site.server, site.plan(message)
        if message.kind == "async":
            senders = site.children.workers()
            children = list(senders.values())
            return Opened(
                AsyncStore(*where, children, values, site.names, senders.get(0), message.staleness),
                senders,
            )
        check_kind(message)
        senders, children = site.children.senders, list(site.children.in_tree)
        return Opened(SyncStore(*where, children, values, site.names, senders.get(0)), senders)

    def close(self, number: int, store: Store[Any]) -> None:
        store.discard()

    def set_updater(self, message: wire.SetUpdater, store: Store[Any], is_new: bool) -> List[Reply]:
        replies: List[Reply] = []
        if is_new:
            updater = load_updater(message.kind, message.blob, self._may_run_code)
            replies = store.set_updater(updater)
        self._on_accepted(wire.Accepted(message.store, message.serial))
        return replies

    def check_hyper(self, message: wire.SetHyper, store: Store[Any]) -> None:
        if store.updater is None:
            raise ProtocolError(
                f"hyper-parameters came for store {message.store} before an optimizer"
            )
        store.updater.check_hyper(message)

    def set_hyper(self, message: wire.SetHyper, store: Store[Any], is_new: bool) -> None:
        if is_new:
            assert store.updater is not None  # `check_hyper` has seen it
            store.updater.set_hyper(message)
        self._on_accepted(wire.Accepted(message.store, message.serial))

    def join(self, number: int, done: Callable[[], None]) -> None:
        done()

    def declare(self, number: int, plan: Plan) -> None:
        pass  # nobody else has to know

    def compress(self, number: int, compression: Compression) -> None:
        pass  # the store does

    def rise(self, number: int) -> None:
        pass  # nothing does
