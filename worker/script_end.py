"""How the script of this process ends, known before anything waits for its end.

Python does not tell `atexit` callbacks why it ends. So we watch what Python does before that:

- After an exception it sets `sys.last_value` and calls `sys.excepthook`.
- After SystemExit it reads the exception's ``code``. We replace that attribute by a property, which
  knows that the reader is Python itself when no frame is above its own. Before Python 3.12
  `sys.exit` creates its exception lazily, so `startup.install` replaces `sys.exit`. (That alone
  would miss ``raise SystemExit(3)``, and mistake a SystemExit that the script catches.)

In a process of `multiprocessing` neither happens; its finalizers run while the exception is raised.
All of this runs in the main thread: the script ends when that thread does.
"""

import ctypes
import gc
import signal
import sys
import threading
from typing import Any, Callable, Optional

__all__ = ["ScriptEnd"]


class ScriptEnd:
    """Calls ``on_failure(code, error)`` once when the script has failed with ``error``.

    Python has printed the error by then, unless it is a SystemExit.
    """

    def __init__(self, on_failure: Callable[[int, BaseException], object]) -> None:
        self._on_failure = on_failure
        self._code: Optional[int] = None
        self._watch_exceptions()
        self._watch_system_exit()

    def code(self) -> int:
        """The exit code of a script that ends now; 128 + N if signal N ends it."""
        if self._code is None:
            self._note(sys.exc_info()[1] or _uncaught())
        return self._code or 0

    def _note(self, error: Optional[BaseException]) -> None:
        if self._code is None:
            self._code = _code_of(error)
            if error is not None and self._code:
                self._on_failure(self._code, error)

    def _watch_exceptions(self) -> None:
        original = sys.excepthook

        def excepthook(kind: Any, error: Any, trace: Any) -> None:
            original(kind, error, trace)
            if _is_main_thread() and error is not None and error is _uncaught():
                self._note(error)

        sys.excepthook = excepthook

    def _watch_system_exit(self) -> None:
        member = SystemExit.__dict__["code"]

        def get(error: Any) -> Any:
            if sys._getframe().f_back is None and _is_main_thread():
                self._note(error)
            return member.__get__(error)

        # Python forbids assigning to a built-in class, so we change its dictionary.
        (attributes,) = gc.get_referents(SystemExit.__dict__)
        attributes["code"] = property(get, member.__set__, member.__delete__, member.__doc__)
        ctypes.pythonapi.PyType_Modified(ctypes.py_object(SystemExit))


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _uncaught() -> Optional[BaseException]:
    """The exception that has ended the script, not one that was only printed by a callback."""
    trace = getattr(sys, "last_traceback", None)
    if trace is None or trace.tb_frame.f_back is not None:
        return None
    error: Optional[BaseException] = getattr(sys, "last_value", None)
    return error


def _code_of(error: Optional[BaseException]) -> int:
    """The exit code that Python derives from ``error`` (pythonrun.c)."""
    if error is None:
        return 0
    if isinstance(error, KeyboardInterrupt):
        return 128 + signal.SIGINT
    if not isinstance(error, SystemExit):
        return 1
    if error.code is None:
        return 0
    return error.code & 0xFF if isinstance(error.code, int) else 1
