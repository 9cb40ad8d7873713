"""MXNet's metrics over all workers: each worker's counts, and a metric with the counts of all.

Most metrics keep a sum and a number of instances, which add up. This file has code for each of the
others. A user's own class is treated like its base class, unless it overrides `reset`: then it
keeps values that this file does not know.
"""

import functools
import operator
from typing import Any, Dict, List, Sequence

import mxnet as mx
import numpy as np

from baryon.ps import UsageError

__all__ = ["merge", "state_of"]

State = Dict[str, Any]

_SUMS = ("num_inst", "sum_metric", "global_num_inst", "global_sum_metric")
_COUNTS = tuple(
    f"{scope}{kind}_{what}s"
    for scope in ("", "global_")
    for kind in ("true", "false")
    for what in ("positive", "negative")
)
_MOMENTS = ("_label_nums", "_mean_l", "_sse_l", "_pred_nums", "_mean_p", "_sse_p", "_conv")


def state_of(metric: Any) -> State:
    """The counts of ``metric``, an `mx.metric.EvalMetric`, so far, as plain data.

    Raises UsageError for a class whose counts are not known.
    """
    _check(metric)
    return {"of": f"{type(metric).__name__} {metric.name!r}", **_read(metric)}


def merge(metric: Any, states: Dict[int, State], rank: int) -> None:
    """Give the metric of worker ``rank`` the counts of all workers; ``states`` are in rank order.

    Raises UsageError, naming the workers, if their metrics differ.
    """
    own = _names(states[rank])
    for other, state in states.items():
        if _names(state) != own:
            raise UsageError(
                f"allreduce needs the same metric on all workers: worker {other} has "
                f"{_names(state)}, but worker {rank} has {own}"
            )
    _write(metric, list(states.values()))


def _names(state: State) -> str:
    inner = ", ".join(map(_names, state.get("metrics", ())))
    return f"{state['of']} of ({inner})" if inner else state["of"]


def _check(metric: Any) -> None:
    kind = type(metric)
    known = next(base for base in kind.__mro__ if base.__module__ == mx.metric.__name__)
    for method in ("reset", "reset_local"):
        if getattr(kind, method) is not getattr(known, method):
            raise UsageError(
                f"the metric {metric.name!r} cannot be merged: {kind.__name__} has a {method}() of "
                f"its own, so it keeps values that {known.__name__} does not; reduce them "
                "yourself, as in metric.hits = kv.allreduce(metric.hits)"
            )


# -- sum and number of instances --------------------------------------------------------------


@functools.singledispatch
def _read(metric: Any) -> State:
    return _attributes(metric, _SUMS)


@functools.singledispatch
def _write(metric: Any, states: List[State]) -> None:
    _set(metric, _total(states, _SUMS))


def _attributes(owner: Any, names: Sequence[str]) -> State:
    return {name: _plain(owner, name) for name in names}


def _plain(owner: Any, name: str) -> Any:
    """An attribute as plain data: NumPy's or Python's number (0 without data), or an array."""
    value = getattr(owner, name)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (int, float, np.ndarray, mx.nd.NDArray)):
        return value
    raise UsageError(
        f"{type(owner).__name__}.{name} is a {type(value).__name__}, which cannot be added up over "
        "workers; have the metric keep numbers or arrays"
    )


def _total(states: List[State], names: Sequence[str]) -> State:
    return {name: functools.reduce(operator.add, (s[name] for s in states)) for name in names}


def _set(owner: Any, values: State) -> None:
    for name, value in values.items():
        setattr(owner, name, value)


# -- metrics of metrics -----------------------------------------------------------------------


@_read.register(mx.metric.CompositeEvalMetric)
def _(metric: Any) -> State:
    return {"metrics": [state_of(inner) for inner in metric.metrics]}


@_write.register(mx.metric.CompositeEvalMetric)
def _(metric: Any, states: List[State]) -> None:
    for index, inner in enumerate(metric.metrics):
        _write(inner, [state["metrics"][index] for state in states])


# -- true and false positives and negatives ---------------------------------------------------
# With "macro" averages the metric empties these counts after each batch. Otherwise they are all it
# keeps, and the score follows from them as in the metric's own update.


@_read.register(mx.metric.F1)
def _(metric: Any) -> State:
    return {**_attributes(metric, _SUMS), **_attributes(metric.metrics, _COUNTS)}


@_write.register(mx.metric.F1)
def _(metric: Any, states: List[State]) -> None:
    _set(metric, _total(states, _SUMS))
    counts = metric.metrics
    _set(counts, _total(states, _COUNTS))
    if metric.average != "macro":
        _set_score(metric, counts, counts.fscore, counts.global_fscore)


@_read.register(mx.metric.MCC)
def _(metric: Any) -> State:
    return {**_attributes(metric, _SUMS), **_attributes(metric._metrics, _COUNTS)}


@_write.register(mx.metric.MCC)
def _(metric: Any, states: List[State]) -> None:
    _set(metric, _total(states, _SUMS))
    counts = metric._metrics
    _set(counts, _total(states, _COUNTS))
    if metric._average != "macro":
        _set_score(metric, counts, counts.matthewscc(), counts.matthewscc(use_global=True))


def _set_score(metric: Any, counts: Any, score: float, global_score: float) -> None:
    metric.num_inst, metric.global_num_inst = counts.total_examples, counts.global_total_examples
    metric.sum_metric = score * metric.num_inst
    metric.global_sum_metric = global_score * metric.global_num_inst


# -- correlations -----------------------------------------------------------------------------


@_read.register(mx.metric.PearsonCorrelation)
def _(metric: Any) -> State:
    moments = _MOMENTS if metric.average == "micro" else ()
    return _attributes(metric, (*_SUMS, *moments))


@_write.register(mx.metric.PearsonCorrelation)
def _(metric: Any, states: List[State]) -> None:
    _set(metric, _total(states, _SUMS))
    if metric.average == "micro":
        moments = ({name: state[name] for name in _MOMENTS} for state in states)
        _set(metric, functools.reduce(_join_moments, moments))


def _join_moments(a: State, b: State) -> State:
    """The moments of two samples as one: counts, means, and sums of squares about the means.

    T. F. Chan, G. H. Golub, R. J. LeVeque: Updating formulae and a pairwise algorithm for computing
    sample variances, 1979, equations 2.1; the sum of products likewise.
    """
    count = a["_label_nums"] + b["_label_nums"]
    if not count:
        return a
    weight = a["_label_nums"] * b["_label_nums"] / count
    label, pred = b["_mean_l"] - a["_mean_l"], b["_mean_p"] - a["_mean_p"]
    share = b["_label_nums"] / count
    return {
        "_label_nums": count,
        "_pred_nums": count,
        "_mean_l": a["_mean_l"] + label * share,
        "_mean_p": a["_mean_p"] + pred * share,
        "_sse_l": a["_sse_l"] + b["_sse_l"] + label * label * weight,
        "_sse_p": a["_sse_p"] + b["_sse_p"] + pred * pred * weight,
        "_conv": a["_conv"] + b["_conv"] + label * pred * weight,
    }


_MATRICES = ("lcm", "gcm")  # confusion matrices: since reset_local, and in all


@_read.register(mx.metric.PCC)
def _(metric: Any) -> State:
    return _attributes(metric, ("num_inst", "global_num_inst", *_MATRICES))


@_write.register(mx.metric.PCC)
def _(metric: Any, states: List[State]) -> None:
    """Each worker's matrices are as large as the largest class that it has seen."""
    size = max(len(state["lcm"]) for state in states)
    states = [
        {**state, **{name: _grown(state[name], size) for name in _MATRICES}} for state in states
    ]
    _set(metric, _total(states, ("num_inst", "global_num_inst", *_MATRICES)))
    metric.k = size


def _grown(matrix: Any, size: int) -> Any:
    return np.pad(matrix, (0, size - len(matrix)), "constant")
