"""Runs at the start of every Python of a worker; prepares it for `import mxnet` and no more.

Python imports the first module named sitecustomize on its path at start-up. An agent puts this
folder first on PYTHONPATH, so whatever command a worker runs, this is inherited by every Python
below it. A sitecustomize of the user's own, which this one hides, is run as well.
"""

import importlib.machinery
import importlib.util
import os
import signal
import sys


def _run_hidden_sitecustomize() -> None:
    here = os.path.dirname(os.path.abspath(__file__))
    others = [path for path in sys.path if os.path.abspath(path or ".") != here]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", others)
    if spec is None or spec.loader is None:
        return
    module = importlib.util.module_from_spec(spec)
    sys.modules["sitecustomize"] = module
    spec.loader.exec_module(module)


def _prepare() -> None:
    # The agent's own copy of baryon, whichever version is installed. What lies beside it (libraries
    # that were brought along to a host that lacks them) comes after all else.
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    home = os.path.dirname(package)
    sys.path.insert(0, home)
    import baryon  # noqa: F401

    sys.path.remove(home)
    sys.path.append(home)
    from baryon.worker import startup, tracebacks

    startup.install()
    tracebacks.install()


if os.environ.get("BARYON_TASK"):
    # An exception in here would be a fatal error of Python. Ctrl-C just ends it.
    _handler = signal.getsignal(signal.SIGINT)
    if _handler == signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    _prepare()
    signal.signal(signal.SIGINT, _handler)
_run_hidden_sitecustomize()
