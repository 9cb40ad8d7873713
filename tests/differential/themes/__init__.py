"""The cases, by theme; importing a theme's module registers its cases."""

import importlib

NAMES = (
    "types",
    "values",
    "keys",
    "arrays",
    "refusals",
    "optimizers",
    "hyper",
    "sparse",
    "servers",
    "trainer",
    "networks",
    "module",
)


def load() -> None:
    """Register all cases. Needs MXNet."""
    for name in NAMES:
        importlib.import_module(f"{__name__}.{name}")
