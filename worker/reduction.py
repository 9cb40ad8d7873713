"""One result from the numbers and arrays of all workers, also within lists, tuples and dicts. Pure.

Values are combined in rank order, floating ones in float64. So all workers get the same bits, and
so does every run. collectives.py calls this for a script's own values; servers sum gradients.
"""

import functools
from typing import Any, Dict, List

import numpy as np

from baryon.ps import UsageError

from .values import is_array, like, numpy_of

__all__ = ["OPS", "check_op", "reduce"]

OPS = ("sum", "mean", "max", "min")


def check_op(op: str) -> None:
    """Raise UsageError unless ``op`` is one of `OPS`."""
    if op not in OPS:
        raise UsageError(f"allreduce takes one of {', '.join(OPS)}, not {op!r}")


def reduce(values: Dict[int, Any], op: str, rank: int) -> Any:
    """One of `OPS` over ``values``, which are in rank order, for worker ``rank``.

    The result is of the kind of that worker's own value. Floating arrays keep their dtype. Sums of
    integers do, too, and may overflow; a sum of bools is an int64; a mean of integers is a float64.

    Raises UsageError, naming the workers, if the values differ in structure, shape or dtype.
    """
    return _reduce(values, op, rank, "")


def _reduce(values: Dict[int, Any], op: str, rank: int, where: str) -> Any:
    own = values[rank]
    expected = _outline(own, where)
    for other, value in values.items():
        outline = _outline(value, where)
        if outline != expected:
            raise UsageError(
                f"allreduce needs the same structure on all workers: at value{where}, worker "
                f"{other} has {outline}, but worker {rank} has {expected}"
            )

    def inner(key: Any) -> Any:
        parts = {other: value[key] for other, value in values.items()}
        return _reduce(parts, op, rank, f"{where}[{key!r}]")

    if type(own) is dict:
        return {key: inner(key) for key in own}
    if type(own) in (list, tuple):
        return type(own)(map(inner, range(len(own))))
    if len({type(value) for value in values.values()}) > 1 or not is_array(own):
        return _combine_numbers([_python_number(value) for value in values.values()], op)
    return like(_combine([numpy_of(value) for value in values.values()], op), own)


def _outline(value: Any, where: str) -> str:
    """What all workers must agree on; Python's numbers and NumPy's may be mixed."""
    if type(value) is dict:
        return f"a dict of {', '.join(sorted(map(repr, value))) or 'nothing'}"
    if type(value) in (list, tuple):
        return f"a {type(value).__name__} of {len(value)}"
    if type(value) in (bool, int, float) or isinstance(value, np.generic):
        return "a number"
    if is_array(value):
        kind = f"{type(value).__module__}.{type(value).__name__}"
        return f"a {kind} {np.dtype(value.dtype).name}{value.shape}"
    raise UsageError(
        f"allreduce takes numbers, arrays, and lists, tuples and dicts of them; value{where} is "
        f"a {type(value).__name__}"
    )


def _python_number(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _combine(arrays: List[Any], op: str) -> Any:
    """Combine NumPy arrays of one shape and dtype."""
    dtype = arrays[0].dtype
    if op in ("max", "min"):
        choose = np.maximum if op == "max" else np.minimum
        return functools.reduce(choose, arrays[1:], arrays[0].copy())
    is_floating = dtype.kind in "fc"
    if is_floating:
        arrays = [array.astype(np.result_type(dtype, np.float64)) for array in arrays]
    elif dtype.kind == "b":
        arrays = [array.astype(np.int64) for array in arrays]
    total = functools.reduce(np.add, arrays[1:], arrays[0].copy())
    result = total / len(arrays) if op == "mean" else total
    return np.asarray(result, dtype if is_floating else None)


def _combine_numbers(numbers: List[Any], op: str) -> Any:
    """Combine Python's numbers; integers of any size are exact."""
    if any(isinstance(number, float) for number in numbers):
        return _combine([np.array(number, np.float64) for number in numbers], op).item()
    if op in ("max", "min"):
        return max(numbers) if op == "max" else min(numbers)
    return sum(numbers) / len(numbers) if op == "mean" else sum(numbers)
