"""The options of codecs, as `compression_params` gives them: numbers, or numbers in strings."""

import math
from typing import Any, Callable, NamedTuple

__all__ = ["Option", "a_flag", "a_seed", "a_share", "a_size", "a_threshold"]

_SMALLEST_FLOAT32, _LARGEST_FLOAT32 = 2.0**-126, 2.0**127


class Option(NamedTuple):
    """``parse`` takes what the user gave and raises ValueError, which says what is wanted."""

    default: Any
    parse: Callable[[Any], Any]


def a_threshold(value: Any) -> float:
    number = _number(value)
    if not _SMALLEST_FLOAT32 <= number <= _LARGEST_FLOAT32:
        raise ValueError("a positive number that float32 can hold")
    return number


def a_share(value: Any) -> float:
    number = _number(value)
    if not 0 < number <= 1:
        raise ValueError("a number above 0, at most 1")
    return number


def a_seed(value: Any) -> int:
    number = _number(value)
    if not 0 <= number < 2**53 or number != int(number):
        raise ValueError("a whole number from 0 to 2**53 - 1")
    return int(number)


def a_size(value: Any) -> int:
    number = _number(value)
    if not 0 <= number < 2**53 or number != int(number):
        raise ValueError("a whole number of elements")
    return int(number)


def a_flag(value: Any) -> bool:
    flags = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    flag = flags.get(str(value).lower())
    if flag is None:
        raise ValueError("True or False")
    return flag


def _number(value: Any) -> float:
    """NaN, which is in no range, if it is no number."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan
