"""A metric merged over workers says what one says that has seen all batches."""

import copy

import mxnet as mx
import numpy as np
import pytest

from baryon.ps import UsageError
from baryon.worker.mxnet import arrays
from baryon.worker.mxnet.metrics import merge, state_of
from baryon.worker.values import decode, encode

arrays.register()

METRICS = {
    "Accuracy": mx.metric.Accuracy,
    "TopKAccuracy": lambda: mx.metric.TopKAccuracy(top_k=2),
    "F1": mx.metric.F1,
    "F1 micro": lambda: mx.metric.F1(average="micro"),
    "MCC": mx.metric.MCC,
    "MCC micro": lambda: mx.metric.MCC(average="micro"),
    "Perplexity": lambda: mx.metric.Perplexity(ignore_label=0),
    "MAE": mx.metric.MAE,
    "MSE": mx.metric.MSE,
    "RMSE": mx.metric.RMSE,
    "CrossEntropy": mx.metric.CrossEntropy,
    "NegativeLogLikelihood": mx.metric.NegativeLogLikelihood,
    "PearsonCorrelation": mx.metric.PearsonCorrelation,
    "PearsonCorrelation micro": lambda: mx.metric.PearsonCorrelation(average="micro"),
    "PCC": mx.metric.PCC,
    "Loss": mx.metric.Loss,
    "Torch": mx.metric.Torch,
    "Caffe": mx.metric.Caffe,
    "CustomMetric": lambda: mx.metric.np(lambda label, pred: (float(np.sum(pred)), pred.size)),
    "CompositeEvalMetric": lambda: mx.metric.create(
        ["acc", mx.metric.F1(average="micro"), mx.metric.create(["pcc", "ce"])]
    ),
}
REGRESSIONS = ("MAE", "MSE", "RMSE", "PearsonCorrelation")
BINARY = ("F1", "MCC", "CompositeEvalMetric")
# Batches of each worker; the last has nothing for the metric to count.
SHARES = ([7, 5], [4], [9, 3, 6], [])


def batches(name, share, seed):
    """(labels, predictions) for a metric; later workers see more classes, if it takes many."""
    random = np.random.RandomState(seed)
    classes = 2 if name.startswith(BINARY) else 3 + seed
    for size in share:
        pred = random.dirichlet(np.ones(classes), size)
        label = random.randint(0, classes, size)
        if name.startswith(REGRESSIONS):
            label = random.rand(size, classes)
        yield [mx.nd.array(label)], [mx.nd.array(pred)]


def merged(metrics):
    """Each worker's metric after all have been merged, by way of the bytes that travel."""
    states = {rank: decode(encode(state_of(m))) for rank, m in enumerate(metrics)}
    for rank, metric in enumerate(metrics):
        merge(metric, states, rank)
    return metrics


def test_every_metric_is_tried():
    known = {
        kind.__name__
        for kind in vars(mx.metric).values()
        if isinstance(kind, type) and issubclass(kind, mx.metric.EvalMetric)
    }
    assert {name.split()[0] for name in METRICS} == known - {"EvalMetric"}


@pytest.mark.parametrize("name", METRICS)
def test_it_is_as_if_one_had_seen_all(name):
    whole = METRICS[name]()
    parts = [METRICS[name]() for _ in SHARES]
    for rank, share in enumerate(SHARES):
        for labels, preds in batches(name, share, seed=rank):
            whole.update(labels, preds)
            parts[rank].update(labels, preds)
    assert len({str(part.get()) for part in parts}) > 1
    for part in merged(parts):
        assert part.get()[0] == whole.get()[0]
        np.testing.assert_allclose(part.get()[1], whole.get()[1], rtol=1e-6)
        np.testing.assert_allclose(part.get_global()[1], whole.get_global()[1], rtol=1e-6)
        assert part.get() == parts[0].get(), "the same to the bit on all workers"


@pytest.mark.parametrize("name", METRICS)
def test_it_counts_on_from_there(name):
    """And since reset_local, and all, are kept apart."""
    whole, part, other = (METRICS[name]() for _ in range(3))
    first, second = batches(name, [8, 6], seed=1)
    later = next(batches(name, [5], seed=2))
    for metric in (whole, part):
        metric.update(*first)
        metric.reset_local()
    whole.update(*second)
    other.update(*second)
    merged([part, other])
    for metric in (whole, part):
        metric.update(*later)
    if name != "PearsonCorrelation micro":  # whose reset_local keeps what it has
        np.testing.assert_allclose(part.get()[1], whole.get()[1], rtol=1e-6)
    np.testing.assert_allclose(part.get_global()[1], whole.get_global()[1], rtol=1e-6)


@pytest.mark.parametrize("name", METRICS)
def test_without_any_data_there_is_still_nothing(name):
    metrics = merged([METRICS[name](), METRICS[name]()])
    assert str(metrics[0].get()) == str(METRICS[name]().get())


@pytest.mark.parametrize("name", METRICS)
def test_one_worker_alone_changes_nothing(name):
    metric = METRICS[name]()
    for labels, preds in batches(name, [7, 5], seed=3):
        metric.update(labels, preds)
    (alone,) = merged([copy.deepcopy(metric)])
    assert alone.get() == metric.get()


def test_a_metric_of_ones_own_that_keeps_a_sum_can_be_merged():
    class Median(mx.metric.EvalMetric):
        def __init__(self):
            super().__init__("median")

        def update(self, labels, preds):
            self.sum_metric += mx.nd.array([np.median(preds)])
            self.num_inst += 1

    one, other, idle = Median(), Median(), Median()
    one.update(None, [1, 2, 9])
    other.update(None, [3, 4, 5])
    for metric in merged([one, other, idle]):
        assert metric.get()[1].asscalar() == 3


class Hits(mx.metric.Accuracy):
    def reset(self):
        super().reset()
        self.hits = []


class Lists(mx.metric.EvalMetric):
    def update(self, labels, preds):
        self.sum_metric = [1.0]


def test_one_that_keeps_more_is_refused_with_what_to_do():
    words = r"'accuracy' cannot be merged: Hits has a reset\(\) .* kv.allreduce\(metric.hits\)"
    with pytest.raises(UsageError, match=words):
        state_of(Hits())
    with pytest.raises(UsageError, match=words):
        state_of(mx.metric.CompositeEvalMetric([Hits()]))


def test_a_sum_that_is_no_number_is_refused():
    metric = Lists("lists")
    metric.update(None, None)
    with pytest.raises(UsageError, match=r"Lists.sum_metric is a list"):
        state_of(metric)


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        ("acc", "f1", "worker 1 has F1 'f1', but worker 0 has Accuracy 'accuracy'"),
        (["acc"], ["acc", "mse"], r"of \(Accuracy 'accuracy', MSE 'mse'\), but"),
    ],
)
def test_workers_with_different_metrics_are_named(one, other, words):
    metrics = [mx.metric.create(one), mx.metric.create(other)]
    with pytest.raises(UsageError, match=words):
        merged(metrics)
