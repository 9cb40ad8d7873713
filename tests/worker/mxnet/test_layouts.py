"""The states of MXNet's optimizers as layouts and arrays."""

import warnings

import numpy as np
import pytest

from baryon.ps import UsageError
from baryon.worker.mxnet.compat import import_mxnet

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # MXNet's own
    mx = import_mxnet()

from baryon.worker.mxnet.layouts import flatten, layout_of, unflatten


def nested():
    return (mx.nd.ones((2, 3)), None, [mx.nd.array([5], dtype="int64"), 0.5], (None,))


def test_a_nested_state_comes_back():
    layout, arrays = flatten(nested())
    assert layout == ["tuple", 0, None, ["list", 1, {"value": 0.5}], ["tuple", None]]
    again = unflatten(layout, arrays)
    assert flatten(again)[0] == layout and again[0].asnumpy().tolist() == [[1.0] * 3] * 2
    assert again[2][0].dtype == np.int64 and isinstance(again[2], list)


def test_layouts_are_compared_without_the_numbers():
    assert layout_of([0.5, mx.nd.zeros(1)]) == layout_of([7, mx.nd.ones(9)])
    assert layout_of([0.5]) != layout_of((0.5,))


def test_a_state_of_anything_else_is_refused():
    with pytest.raises(UsageError, match="has a dict in it"):
        flatten({"m": mx.nd.zeros(1)})
