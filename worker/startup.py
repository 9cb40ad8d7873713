"""Puts a framework's stores into the user's script without a change to the script.

`install` runs at the start of every Python below a worker, so it only puts a finder in front of
Python's own. When the script imports one of `_FRAMEWORKS`, the finder imports our module for that
framework, lets the framework's own code run, and then calls `after_import` in our module.
"""

import atexit
import importlib
import importlib.util
import os
import sys
from typing import Any, NoReturn, Optional, Set

__all__ = ["exit_if_forced", "force_exit", "install"]

# The module that a script imports, and ours that serves it. Ours is imported no earlier.
_FRAMEWORKS = {"mxnet": "baryon.worker.mxnet.startup"}
_forced_code: Optional[int] = None
_found: Set[str] = set()


def install() -> None:
    """Prepare this interpreter for `import mxnet`; calling it again does nothing."""
    if any(isinstance(finder, _Finder) for finder in sys.meta_path):
        return
    if sys.version_info < (3, 12):
        sys.exit = _exit  # see script_end.py
    sys.meta_path.insert(0, _Finder())
    atexit.register(exit_if_forced)  # registered first, so it is called last


def force_exit(code: int) -> None:
    """End the process with ``code`` as soon as all atexit callbacks have run."""
    global _forced_code
    _forced_code = code


def exit_if_forced() -> None:
    """End the process now if `force_exit` was called.

    A process of `multiprocessing` has to call this itself: it may skip atexit callbacks.
    """
    if _forced_code is None:
        return
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            pass  # the stream is missing, or its reader has gone
    os._exit(_forced_code)


def _exit(status: Any = None, /) -> NoReturn:
    """Exit the interpreter by raising SystemExit(status)."""
    raise SystemExit(status)


_exit.__name__ = _exit.__qualname__ = "exit"


# These two keep to the protocols of importlib.abc without its classes: importing that module would
# be most of what this file costs.
class _Finder:
    """Finds a framework where Python would find it anyway, and wraps its loader."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name not in _FRAMEWORKS or name in _found:
            return None
        _found.add(name)  # the next line asks this finder again
        spec: Any = importlib.util.find_spec(name)
        if spec is None:
            sys.stderr.write(
                f"baryon: {sys.executable} has no {name}; leave the interpreter out of the command "
                "(launch.py -n 2 train.py), or name one that has it\n"
            )
        elif spec.loader is not None:
            spec.loader = _Loader(spec.loader, _FRAMEWORKS[name])
        return spec


class _Loader:
    """A framework's own loader, with our module before it and a call of ours after it."""

    def __init__(self, loader: Any, ours: str) -> None:
        self._loader = loader
        self._ours = ours

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: Any) -> Any:
        return self._loader.create_module(spec)

    def exec_module(self, module: Any) -> None:
        ours = importlib.import_module(self._ours)
        self._loader.exec_module(module)
        ours.after_import()
