"""Gets our store into the user's script without a change to it.

`install` costs microseconds and waits for the script to import mxnet. Then NumPy's removed names
are put back *before* MXNet's own code runs, and our stores are entered *after* it into the
registry that `mx.kv.create` looks into before it makes a native store.
"""

import atexit
import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from typing import Any, Callable, Dict, NoReturn, Optional

__all__ = ["exit_if_forced", "force_exit", "install"]

_forced_code: Optional[int] = None
_LOCAL_TYPES = ("local", "device", "nccl", "local_allreduce_cpu", "local_allreduce_device")


def install() -> None:
    """Prepare this interpreter for `import mxnet`; calling it again does nothing."""
    if "mxnet" in sys.modules or any(isinstance(f, _MXNetFinder) for f in sys.meta_path):
        return
    if sys.version_info < (3, 12):
        sys.exit = _exit  # see script_end.py
    sys.meta_path.insert(0, _MXNetFinder())
    atexit.register(exit_if_forced)  # the first, so that it is called last


def force_exit(code: int) -> None:
    """Have the process end with ``code`` as soon as all that is registered with atexit is done."""
    global _forced_code
    _forced_code = code


def exit_if_forced() -> None:
    """Do it now; a process of `multiprocessing` may never call what is registered."""
    if _forced_code is None:
        return
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            pass  # there is none, or nobody reads it any more
    os._exit(_forced_code)


def _exit(status: Any = None, /) -> NoReturn:
    """Exit the interpreter by raising SystemExit(status)."""
    raise SystemExit(status)


_exit.__name__ = _exit.__qualname__ = "exit"


class _MXNetFinder(importlib.abc.MetaPathFinder):
    """Finds mxnet where it would be found anyway, and wraps its loader."""

    def find_spec(
        self, name: str, path: Any = None, target: Any = None
    ) -> Optional[importlib.machinery.ModuleSpec]:
        if name != "mxnet":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec("mxnet")
        if spec is None:
            sys.stderr.write(
                f"baryon: {sys.executable} has no mxnet; leave the interpreter out of the command "
                "(launch.py -n 2 train.py), or name one that has it\n"
            )
        elif spec.loader is not None:
            spec.loader = _Around(spec.loader)
        return spec


class _Around(importlib.abc.Loader):
    """A loader that does something of ours before and after the real one."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: Any) -> Any:
        return self._loader.create_module(spec)

    def exec_module(self, module: Any) -> None:
        from .mxnet.compat import install as fit_numpy

        fit_numpy()
        self._loader.exec_module(module)
        _register_stores()


def _register_stores() -> None:
    from mxnet.kvstore.base import KVStoreBase

    from baryon.scheduler.control import read_credentials

    credentials = read_credentials()
    assert credentials is not None
    KVStoreBase.kv_registry = _Registry(KVStoreBase.kv_registry)
    if credentials.kvstore is not None:
        _override(credentials.kvstore)


class _Registry(Dict[str, Any]):
    """MXNet's registry of stores; every name that means "distributed" to MXNet is ours.

    Also those that we do not serve: our error is clearer than MXNet's native store, which would
    look for servers that do not exist.
    """

    def __contains__(self, name: Any) -> bool:
        return super().__contains__(name) or "dist" in name

    def __missing__(self, name: str) -> Callable[[], Any]:
        return _creator(name)


def _creator(name: str) -> Callable[[], Any]:
    def create() -> Any:
        from .mxnet import create

        return create(name)

    # MXNet reads these two when somebody registers another store under the same name.
    create.__module__, create.__name__ = __name__, name
    return create


def _override(kind: str) -> None:
    """Give a script that asks for another store one of type ``kind``."""
    import mxnet as mx
    from mxnet.kvstore.base import KVStoreBase

    from baryon.scheduler.control import KVSTORE_TYPES

    for name in (*_LOCAL_TYPES, *KVSTORE_TYPES):
        KVStoreBase.kv_registry[name] = _creator(kind)
    # MXNet uses no store at all where one device meets a local type, so the name has to be
    # changed before it is looked at.
    original = mx.model._create_kvstore

    def create_kvstore(kvstore: Any, num_device: int, arg_params: Any) -> Any:
        name = kind if isinstance(kvstore, str) else kvstore
        return original(name, num_device, arg_params)

    for user in (mx.model, mx.gluon.trainer, mx.module.module):
        if getattr(user, "_create_kvstore", None) is original:
            user._create_kvstore = create_kvstore
