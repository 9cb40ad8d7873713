"""What a worker does after the script's `import mxnet`; worker/startup.py calls it.

Our stores are entered into the registry that `mx.kv.create` looks into before it makes a native
store. worker/startup.py imports this module before MXNet, so it must not import MXNet itself. The
package has put NumPy's removed names back by then.
"""

from typing import Any, Callable, Dict

from baryon.ps import raise_also_as
from baryon.scheduler.control import KVSTORE_TYPES, read_credentials

__all__ = ["after_import"]

_LOCAL_TYPES = ("local", "device", "nccl", "local_allreduce_cpu", "local_allreduce_device")


def after_import() -> None:
    """Enter our stores into MXNet's registry, and MXNet's arrays and error into ours."""
    from mxnet import MXNetError
    from mxnet.kvstore.base import KVStoreBase

    from . import arrays

    arrays.register()
    raise_also_as(MXNetError)
    credentials = read_credentials()
    assert credentials is not None
    KVStoreBase.kv_registry = _Registry(KVStoreBase.kv_registry)
    if credentials.kvstore is not None:
        _override(credentials.kvstore)


class _Registry(Dict[str, Any]):
    """MXNet's registry of stores, in which every name with "dist" in it is ours.

    That includes types we do not serve: our error is clearer than MXNet's native store, which would
    look for servers that do not exist.
    """

    def __contains__(self, name: Any) -> bool:
        return super().__contains__(name) or "dist" in name

    def __missing__(self, name: str) -> Callable[[], Any]:
        return _creator(name)


def _creator(name: str) -> Callable[[], Any]:
    def create() -> Any:
        from .kvstore import create

        return create(name)

    # MXNet reads these two when another store is registered under the same name.
    create.__module__, create.__name__ = __name__, name
    return create


def _override(kind: str) -> None:
    """Give the script a store of type ``kind`` whatever type it asks for."""
    import mxnet as mx
    from mxnet.kvstore.base import KVStoreBase

    for name in (*_LOCAL_TYPES, *KVSTORE_TYPES):
        KVStoreBase.kv_registry[name] = _creator(kind)
    # With one device and a local type MXNet uses no store at all, so the name must change before
    # MXNet looks at it.
    original = mx.model._create_kvstore

    def create_kvstore(kvstore: Any, num_device: int, arg_params: Any) -> Any:
        name = kind if isinstance(kvstore, str) else kvstore
        return original(name, num_device, arg_params)

    for user in (mx.model, mx.gluon.trainer, mx.module.module):
        if getattr(user, "_create_kvstore", None) is original:
            user._create_kvstore = create_kvstore
