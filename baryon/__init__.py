"""Baryon: data-parallel MXNet/Gluon training on many machines, with its own parameter server.

The four parts live in folders of the same names at the top of the repository and are bound into
this package, so that a user's own ``worker.py`` or ``scheduler.py`` never collides with ours.
Import only ``baryon.*``.
"""

__version__ = "0.1.0"
__all__ = ["__version__"]
