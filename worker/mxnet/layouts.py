"""The states of MXNet's optimizers as a layout and plain arrays (wire.StateSpec), and back. Pure.

MXNet's optimizers keep what they like for each parameter: nothing, an array, a tuple of arrays, or
tuples of these.
"""

from typing import Any, List, Tuple

import mxnet as mx
import numpy as np

from baryon.ps import UsageError

__all__ = ["flatten", "layout_of", "unflatten"]


def flatten(state: Any) -> Tuple[Any, List[np.ndarray]]:
    """A state as layout and arrays. Raises UsageError if it contains anything else."""
    arrays: List[np.ndarray] = []

    def visit(node: Any) -> Any:
        if node is None:
            return None
        if isinstance(node, mx.nd.NDArray):
            arrays.append(np.ascontiguousarray(node.asnumpy()))
            return len(arrays) - 1
        if isinstance(node, (tuple, list)):
            return ["tuple" if isinstance(node, tuple) else "list", *map(visit, node)]
        if isinstance(node, (bool, int, float, str)):
            return {"value": node}
        raise UsageError(
            f"an optimizer's state has a {type(node).__name__} in it, which cannot be saved; "
            "it may consist of NDArrays, numbers, tuples and lists"
        )

    return visit(state), arrays


def layout_of(state: Any) -> Any:
    """The layout without the values of numbers: equal for two states of one kind."""
    layout, _ = flatten(state)
    return _without_numbers(layout)


def _without_numbers(layout: Any) -> Any:
    if isinstance(layout, list):
        return [layout[0], *map(_without_numbers, layout[1:])]
    return "value" if isinstance(layout, dict) else layout


def unflatten(layout: Any, arrays: List[np.ndarray]) -> Any:
    """The state that `flatten` has taken apart, with new NDArrays."""

    def visit(node: Any) -> Any:
        if node is None:
            return None
        if isinstance(node, int):
            return mx.nd.array(arrays[node], dtype=arrays[node].dtype)
        if isinstance(node, dict):
            return node["value"]
        nested = [visit(one) for one in node[1:]]
        return tuple(nested) if node[0] == "tuple" else nested

    return visit(layout)
