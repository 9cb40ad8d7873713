"""Seconds to encode and decode a model's gradients, by codec, and what the wire takes then.

    python -m benchmarks.compression
    python -m benchmarks.compression --codecs 2bit fp16 --model densenet201

One thread compresses the slices in which the model's arrays travel (the plan's), each with its
residual, in the order of the plan; another task would decode them. Gradients are normal random
numbers; the same every round, while residuals go on. The codecs take turns. Seconds are those of
the thread's processor time, which others on the machine disturb less than the clock's.

"in line" is encoding, the wire, and decoding one after the other; "overlapped" is the longest of
the three, which is what many slices come to that are under way at once. The peer is the wire
without compression: 8 bits a byte at the nominal rate. *copy* is a codec that copies.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from baryon.ps.compression import CODECS, GradientCodec, codec_of
from baryon.ps.plan import Plan
from benchmarks.models import FP32_NBYTES, Array, trainable_arrays
from benchmarks.report import RESULTS, Stats, console, machine_facts, show_and_write

BITS_PER_S = {"1 Gbit/s": 1e9, "10 Gbit/s": 10e9}
MIN_ROUNDS = 5
SPREAD = 0.1  # of the gradients: with the 2-bit threshold of 0.5 a value is sent now and then

Record = Dict[str, Any]


class Copy(GradientCodec):
    """Sends all as it is: what moving the bytes alone takes."""

    name = "copy"

    def nbytes(self, size: int, dtype: np.dtype) -> int:
        return size * np.dtype(dtype).itemsize

    def _encode(
        self, values: np.ndarray, residual: Optional[np.ndarray], round_: int, payload: np.ndarray
    ) -> None:
        payload.view(values.dtype)[:] = values

    def _decode(self, payload: np.ndarray, out: np.ndarray) -> None:
        out[:] = payload.view(out.dtype)


class Gradients:
    """The slices of a model's gradients; ``received`` is where they are decoded to."""

    def __init__(self, arrays: Sequence[Array]) -> None:
        plan, generator = Plan(num_servers=1), np.random.default_rng(0)
        self.slices: List[np.ndarray] = []
        for array in arrays:
            values = generator.standard_normal(array.size, np.float32) * np.float32(SPREAD)
            key = plan.add(array.name, array.shape, "float32")
            self.slices += [values[slice_.start : slice_.stop] for slice_ in key.slices]
        self.received = [np.zeros_like(values) for values in self.slices]
        self.nbytes = sum(values.nbytes for values in self.slices)


class Taken(NamedTuple):
    encode_s: float
    decode_s: float
    nbytes: int


def one_round(
    codec: GradientCodec, gradients: Gradients, residuals: List[np.ndarray], round_: int
) -> Taken:
    start = time.thread_time()
    payloads = [
        codec.encode(values, residual, round_)
        for values, residual in zip(gradients.slices, residuals)
    ]
    encoded = time.thread_time()
    for payload, out in zip(payloads, gradients.received):
        codec.decode(payload, out)
    decoded = time.thread_time()
    return Taken(encoded - start, decoded - encoded, sum(payload.nbytes for payload in payloads))


def measure(names: Sequence[str], gradients: Gradients, rounds: int) -> List[Record]:
    """A record of each codec, from `rounds` rounds after one that does not count."""
    codecs = [Copy(), *(codec_of({"type": name}) for name in names)]
    residuals = {
        codec.name: [codec.new_residual(part.size, part.dtype) for part in gradients.slices]
        for codec in codecs
    }
    taken: Dict[str, List[Taken]] = {codec.name: [] for codec in codecs}
    for round_ in range(rounds + 1):
        for codec in codecs:
            taken[codec.name].append(one_round(codec, gradients, residuals[codec.name], round_))
        console.print(f"{f'round {round_}' if round_ else 'warm-up'} done")
    return [record_of(codec, taken[codec.name][1:], gradients.nbytes) for codec in codecs]


def record_of(codec: GradientCodec, taken: Sequence[Taken], nbytes: int) -> Record:
    encode, decode = (Stats.of(column) for column in list(zip(*taken))[:2])
    return {
        "codec": codec.name,
        "options": repr(codec),
        "encode_s": encode.__dict__,
        "decode_s": decode.__dict__,
        "share": taken[0].nbytes / nbytes,
        "encode_gb_per_s": nbytes / encode.median / 1e9,
        "decode_gb_per_s": nbytes / decode.median / 1e9,
        "wire": {
            rate: wire_seconds(encode.median, decode.median, taken[0].nbytes, nbytes, bits_per_s)
            for rate, bits_per_s in BITS_PER_S.items()
        },
    }


def wire_seconds(
    encode_s: float, decode_s: float, nbytes: int, plain_nbytes: int, bits_per_s: float
) -> Dict[str, float]:
    wire_s = nbytes * 8 / bits_per_s
    return {
        "plain_s": plain_nbytes * 8 / bits_per_s,
        "wire_s": wire_s,
        "in_line_s": encode_s + wire_s + decode_s,
        "overlapped_s": max(encode_s, wire_s, decode_s),
    }


def headings_and_rows(records: Sequence[Record]) -> Tuple[List[str], List[List[str]]]:
    headings = ["codec", "encode s (min-max)", "decode s (min-max)", "GB/s", "bytes sent"]
    for rate, seconds in records[0]["wire"].items():
        headings += [f"{rate}: {seconds['plain_s']:.3f} s becomes in line", "overlapped"]
    rows = []
    for record in records:
        shown = [
            f"{one['median']:.3f} ({one['minimum']:.3f}-{one['maximum']:.3f})"
            for one in (record["encode_s"], record["decode_s"])
        ]
        speed = f"{record['encode_gb_per_s']:.1f}, {record['decode_gb_per_s']:.1f}"
        row = [record["codec"], *shown, speed, f"{record['share']:.2%}"]
        for seconds in record["wire"].values():
            row += [f"{seconds['in_line_s']:.3f}", f"{seconds['overlapped_s']:.3f}"]
        rows.append(row)
    return headings, rows


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compression", description=__doc__)
    parser.add_argument("--model", default="resnet152")
    parser.add_argument("--codecs", nargs="+", choices=list(CODECS), default=list(CODECS))
    parser.add_argument("--runs", type=int, default=7, help="rounds (default 7, at least 5)")
    parser.add_argument("--output", type=Path, default=RESULTS / "compression.json")
    options = parser.parse_args()
    if options.runs < MIN_ROUNDS:
        parser.error(f"--runs: fewer than {MIN_ROUNDS} rounds make no figure")
    facts = machine_facts()
    gradients = Gradients(trainable_arrays(options.model))
    records = measure(options.codecs, gradients, options.runs)
    title = f"{options.model}: {gradients.nbytes / 1e6:.0f} MB in {len(gradients.slices)} slices"
    setting = {"model": options.model, "runs": options.runs, "elements_nbytes": FP32_NBYTES}
    content = {
        "benchmark": "compression",
        "machine": facts,
        "setting": {**setting, "slices": len(gradients.slices)},
        "cases": records,
    }
    show_and_write(options.output, title, content, *headings_and_rows(records), num_labels=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
