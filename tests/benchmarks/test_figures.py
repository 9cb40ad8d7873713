"""From what runs report to the figures that are claimed."""

import json

import pytest

from baryon.ps.compression import TwoBit
from benchmarks import plot
from benchmarks.compression import Copy, Gradients, Taken, measure, record_of
from benchmarks.memory import Sweep, used
from benchmarks.models import Array
from benchmarks.systems import Run


def run_of(*reports):
    return Run(list(reports), 0.0, [0] * len(reports))


def test_memory_is_counted_from_the_first_key_on_and_without_momentum() -> None:
    def sweep(at_s, server, *workers):
        pss = {1: server, **dict(enumerate(workers, 2))}
        return Sweep(
            at_s,
            {pid: {"Pss_Anon": value - 20, "Pss_Shmem": 20} for pid, value in pss.items()},
            [1],
        )

    sweeps = [
        sweep(0, 900, 0, 0),
        sweep(1, 50, 300, 300),
        sweep(3, 350, 300, 400),
        sweep(4, 250, 350, 300),
        sweep(9, 999, 999, 999),  # after the work
    ]
    reports = [{"pid": pid, "nbytes": 100, "first_key_at_s": 2, "ended_at_s": 5} for pid in (2, 3)]
    figures, processes = used(run_of(*reports), sweeps)
    assert figures == {"server": 2.0, "worker": 0.75, "job": 3.0}
    assert [process["role"] for process in processes] == ["server", "worker", "worker"]


def test_compression_pays_where_the_wire_is_slower_than_the_codec() -> None:
    taken = [
        Taken(0.1, 0.05, 10_000_000),
        Taken(0.3, 0.07, 10_000_000),
        Taken(0.2, 0.06, 10_000_000),
    ]
    record = record_of(TwoBit(), taken, 160_000_000)
    assert record["share"] == 1 / 16 and record["encode_gb_per_s"] == pytest.approx(0.8)
    assert record["wire"]["1 Gbit/s"] == pytest.approx(
        {"plain_s": 1.28, "wire_s": 0.08, "in_line_s": 0.34, "overlapped_s": 0.2}
    )
    assert record["wire"]["10 Gbit/s"]["in_line_s"] > record["wire"]["10 Gbit/s"]["plain_s"]


def test_compression_is_measured_on_the_slices_that_travel() -> None:
    gradients = Gradients([Array("big", (300_000,)), Array("small", (7,))])
    assert [values.size for values in gradients.slices] == [262_144, 37_856, 7]
    copied, cast = measure(["fp16"], gradients, 5)
    assert copied["codec"] == Copy.name and copied["share"] == 1 and cast["share"] == 0.5
    assert all(
        abs(sent - values).max() < 1e-3
        for sent, values in zip(gradients.received, gradients.slices)
    )


@pytest.mark.parametrize(
    ("values", "unit", "factor", "shown"),
    [
        ([2.0, 0.3], "s", 1.0, "s"),
        ([0.124, 0.0068], "s", 1e3, "ms"),
        ([0.0006], "s", 1e6, "µs"),
        ([0.5], "x parameters", 1.0, "x parameters"),
    ],
)
def test_a_pictures_unit_is_that_of_its_figures(values, unit, factor, shown) -> None:
    assert plot.scaled(values, unit) == (factor, shown)


def case_of(**ratios):
    """Each peer's ratios, lowest, median and highest."""
    names = ("minimum", "median", "maximum")
    return {"ratios": {peer: dict(zip(names, values)) for peer, values in ratios.items()}}


def test_a_pictures_title_says_what_was_found() -> None:
    cases = [
        case_of(native=(0.3, 0.31, 0.33), gloo=(0.9, 1.0, 1.1)),
        case_of(native=(1.0, 2.29, 2.4), gloo=(0.9, 1.02, 1.1)),
    ]
    told = "pushpull: baryon takes 0.31 to 2.29 of native's time; no difference from gloo"
    assert plot.finding("pushpull", cases, "s") == told
    assert plot.finding("m", cases[:1], "x").startswith("m: baryon takes 0.31 of native's figure;")
    assert plot.finding("startup", [case_of()], "s") == "startup: no peer was measured"


def test_a_picture_is_drawn_again_from_what_was_written(tmp_path, monkeypatch) -> None:
    stats = {"minimum": 0.1, "median": 0.2, "maximum": 0.3, "values": [0.2]}
    peer = {"seconds": {"baryon": stats, "native": stats}, "ratios": {"native": stats}}
    cases = [{"name": str(number), "limits": {"wire": 0.1}, **peer} for number in range(5)]
    path = tmp_path / "pushpull.json"
    path.write_text(json.dumps({"benchmark": "pushpull", "unit": "s", "cases": cases}))
    monkeypatch.setattr("sys.argv", ["plot", str(path)])
    assert plot.main() == 0
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
