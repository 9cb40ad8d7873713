"""Codecs: what is sent and what stays are together what was given, and no payload does harm."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from baryon.ps.compression import (
    CODECS,
    COMPRESSIBLE,
    BFloat16,
    Float16,
    OneBit,
    RandomK,
    TopK,
    TwoBit,
    codec_of,
)
from baryon.ps.compression.codec import PIECE
from baryon.ps.errors import ProtocolError, UsageError
from benchmarks import native

ALL = [TwoBit(0.25), OneBit(), Float16(), BFloat16(), TopK(0.1), RandomK(0.1, seed=5)]
SIZES = (0, 1, 3, 4, 15, 16, 17, 1000, 5000, PIECE, PIECE + 5)
each_codec = pytest.mark.parametrize("codec", ALL, ids=lambda codec: codec.name)
each_dtype = pytest.mark.parametrize("dtype", COMPRESSIBLE)


def decoded(codec, payload, size, dtype="float32"):
    out = np.full(size, 77, dtype)
    codec.decode(payload, out)
    return out


def gradients(size, dtype="float32", seed=0, scale=0.1):
    return (np.random.default_rng(seed).standard_normal(size) * scale).astype(dtype)


def arrays(dtype="float32", limit=1e4, max_size=300):
    width = np.dtype(dtype).itemsize * 8
    elements = st.floats(-limit, limit, width=width)
    return hnp.arrays(dtype, st.integers(1, max_size), elements=elements)


# -- What holds for all


@pytest.mark.parametrize(
    ("codec", "dtype"),
    [
        pytest.param(codec, dtype, id=f"{codec.name}-{dtype}")
        for codec in ALL
        for dtype in COMPRESSIBLE
        if (codec.name, dtype) != ("bf16", "float16")  # saves nothing, and loses
    ],
)
@pytest.mark.parametrize("size", SIZES)
def test_what_is_sent_and_what_stays_are_what_was_given(codec, dtype, size) -> None:
    values, residual = gradients(size, dtype), codec.new_residual(size, dtype)
    residual += gradients(size, residual.dtype, seed=1)
    given_values, given_residual = values.copy(), residual.copy()
    payload = codec.encode(values, residual, 3)
    assert payload.dtype == np.uint8 and payload.shape == (codec.nbytes(size, values.dtype),)
    assert np.array_equal(values, given_values)
    together = decoded(codec, payload, size, dtype).astype("float64") + residual
    exact = given_values.astype("float64") + given_residual
    np.testing.assert_allclose(together, exact, rtol=0, atol=2e-7)


@each_codec
@settings(max_examples=200)
@given(values=arrays())
@example(values=np.full(300, -0.0, "float32"))
@example(values=np.full(5000, 1e-45, "float32"))
def test_round_trip_of_any_finite_values(codec, values) -> None:
    residual = codec.new_residual(values.size, values.dtype)
    out = decoded(codec, codec.encode(values, residual), values.size)
    assert np.isfinite(residual).all()
    assert np.abs(out).max() <= max(np.abs(values).max() * (1 + 2**-8), 0.25)
    atol = 2e-7 * max(1.0, np.abs(values).max())
    np.testing.assert_allclose(out + residual, values, rtol=0, atol=atol)


@each_codec
def test_without_a_residual_the_same_is_sent_as_with_one_of_zeros(codec) -> None:
    values = gradients(PIECE + 9)
    zeros = codec.new_residual(values.size, values.dtype)
    assert np.array_equal(codec.encode(values, zeros, 2), codec.encode(values, None, 2))


@each_codec
def test_over_many_rounds_all_is_sent(codec) -> None:
    """The sum of what is decoded stays within the residual of the sum of what was given, and the
    residual does not grow: what is missing of the mean falls as one over the rounds."""
    rounds, size = 400, 500
    residual = codec.new_residual(size, "float32")
    given_sum, sent_sum, missing = np.zeros(size), np.zeros(size), {}
    for round_ in range(1, rounds + 1):
        values = gradients(size, seed=round_) + np.linspace(-0.1, 0.1, size, dtype="float32")
        given_sum += values
        sent_sum += decoded(codec, codec.encode(values, residual, round_), size)
        missing[round_] = np.abs(given_sum - sent_sum).mean() / round_
    np.testing.assert_allclose(sent_sum + residual, given_sum, atol=1e-3)
    assert missing[rounds] < max(missing[100] / 2, 1e-6)
    assert missing[rounds] < 0.02


@each_codec
@pytest.mark.parametrize("size", [1, 100, PIECE + 5])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, np.uint32(0x7FFFFFFF).view("float32")])
def test_non_finite_values_come_to_light_at_once_and_leave_nothing(codec, bad, size) -> None:
    values, residual = gradients(size), codec.new_residual(size, "float32")
    values[-1] = bad
    out = decoded(codec, codec.encode(values, residual), size)
    assert not np.isfinite(out).all()
    assert np.isfinite(residual).all()
    if codec.name in ("fp16", "bf16", "topk"):
        np.testing.assert_equal(out[-1], np.float32(bad))
    values[-1] = 0.01
    assert np.isfinite(decoded(codec, codec.encode(values, residual, 1), size)).all()


@each_codec
@pytest.mark.parametrize("size", [1, 100, 5000])
def test_a_payload_of_the_wrong_length_is_refused(codec, size) -> None:
    payload, out = codec.encode(gradients(size)), np.full(size, 7, "float32")
    for wrong in (payload[:-1], payload[:0], np.append(payload, np.uint8(0))):
        with pytest.raises(ProtocolError, match="compression_params"):
            codec.decode(wrong, out)
    assert (out == 7).all()


@each_codec
@each_dtype
@settings(max_examples=300)
@given(data=st.data())
def test_any_bytes_are_decoded_or_refused(codec, dtype, data) -> None:
    """300 payloads for each codec and dtype, 5400 in all: noise, and changed real ones."""
    size = data.draw(st.integers(0, 600))
    payload = codec.encode(gradients(size, dtype))
    if data.draw(st.booleans()):
        noise = data.draw(st.binary(max_size=2 * payload.size + 9))
        payload = np.frombuffer(noise, np.uint8)
    elif payload.size:
        for _ in range(data.draw(st.integers(1, 4))):
            payload[data.draw(st.integers(0, payload.size - 1))] ^= data.draw(st.integers(1, 255))
    guarded = np.full(size + 64, 7, dtype)
    out = guarded[32 : 32 + size]
    try:
        codec.decode(payload, out)
    except ProtocolError:
        assert (out == 7).all()
    assert (guarded[:32] == 7).all() and (guarded[32 + size :] == 7).all()


@each_codec
def test_a_payload_may_lie_anywhere(codec) -> None:
    payload = codec.encode(gradients(1001))
    apart = np.zeros(payload.size + 1, np.uint8)[1:]  # at an odd address
    apart[:] = payload
    apart.flags.writeable = False
    assert np.array_equal(decoded(codec, apart, 1001), decoded(codec, payload, 1001))


# -- 2 bits


def reference_2bit(values, residual, threshold):
    """MXNet's quantize_2bit, value by value: the codes' bytes; changes ``residual``."""
    codes = bytearray(-(-len(values) // 16) * 4)
    for i, value in enumerate(values):
        residual[i] += value
        if residual[i] >= threshold:
            codes[i // 4] |= 0xC0 >> 2 * (i % 4)
            residual[i] -= threshold
        elif residual[i] <= -threshold:
            codes[i // 4] |= 0x80 >> 2 * (i % 4)
            residual[i] += threshold
    return bytes(codes)


@given(values=arrays(limit=3, max_size=70), threshold=st.floats(2**-10, 2, width=32))
@example(values=np.float32([0.5, -0.5, 0.49999997, -0.49999997, -0.0]), threshold=0.5)
def test_2bit_is_mxnets_definition_bit_for_bit(values, threshold) -> None:
    codec, threshold = TwoBit(threshold), np.float32(threshold)
    ours, theirs = (np.zeros(values.size, "float32") for _ in range(2))
    for _ in range(3):
        assert codec.encode(values, ours).tobytes() == reference_2bit(values, theirs, threshold)
        assert ours.tobytes() == theirs.tobytes()


@pytest.mark.parametrize("threshold", ["0.5", "0.3"])
def test_2bit_gives_the_sums_of_mxnets_own_code(mx, threshold) -> None:
    """MXNet's compression between the devices of one process is its C++ code, as for servers."""
    size, devices = 1003, 2
    store = mx.kv.create("device")
    store.set_gradient_compression({"type": "2bit", "threshold": threshold})
    store.init(0, mx.nd.zeros(size))
    codec = codec_of({"type": "2bit", "threshold": threshold})
    residuals = [codec.new_residual(size, "float32") for _ in range(devices)]
    out = mx.nd.zeros(size)
    for round_ in range(10):
        values = [gradients(size, seed=round_ * devices + i, scale=0.4) for i in range(devices)]
        store.push(0, [mx.nd.array(value, mx.cpu(i)) for i, value in enumerate(values)])
        store.pull(0, out=out)
        payloads = [codec.encode(*pair) for pair in zip(values, residuals)]
        expected = sum(decoded(codec, payload, size) for payload in payloads)
        assert expected.any() and np.array_equal(out.asnumpy(), expected)


NATIVE = """
import sys
import mxnet as mx
import numpy as np
kv = mx.kv.create("dist_sync")
kv.set_gradient_compression({"type": "2bit", "threshold": 0.5})
given = np.load(sys.argv[1])  # [round][worker]
kv.init(0, mx.nd.zeros(given.shape[2]))
out, sums = mx.nd.zeros(given.shape[2]), []
for values in given:
    kv.push(0, mx.nd.array(values[kv.rank]))
    kv.pull(0, out=out)
    sums.append(out.asnumpy())
np.save(sys.argv[2] + str(kv.rank), np.array(sums))
print("DONE", flush=True)
"""


@pytest.mark.native
def test_2bit_gives_the_sums_of_mxnets_own_servers(tmp_path) -> None:
    workers, rounds, size = 2, 5, 1_000_003  # spread over both servers
    given = gradients(rounds * workers * size, scale=0.4).reshape(rounds, workers, size)
    np.save(tmp_path / "given.npy", given)
    (tmp_path / "script.py").write_text(NATIVE)
    script = [str(tmp_path / name) for name in ("script.py", "given.npy", "sums")]
    native.run(
        script, workers, servers=2, env={"OMP_NUM_THREADS": "1"}, grace_s=5.0, done_mark="DONE"
    )
    codec = TwoBit(0.5)
    residuals = [codec.new_residual(size, "float32") for _ in range(workers)]
    for round_, values in enumerate(given):
        payloads = [codec.encode(*pair) for pair in zip(values, residuals)]
        expected = sum(decoded(codec, payload, size) for payload in payloads)
        for rank in range(workers):
            assert np.array_equal(np.load(tmp_path / f"sums{rank}.npy")[round_], expected)


# -- 1 bit


def test_1bit_sends_signs_and_the_mean_magnitude() -> None:
    values = np.float32([1, -2, 3, 0, -0.0, 6, -1, 3, -4])
    residual = np.zeros(9, "float32")
    payload = OneBit().encode(values, residual)
    assert payload[:4].view("float32") == np.float32(20 / 9)
    assert payload[4:].tolist() == [0b01000010, 0b10000000]  # -0.0 + 0.0 is 0.0
    scale = np.float32(20 / 9)
    sent = scale * np.float32([1, -1, 1, 1, 1, 1, -1, 1, -1])
    assert np.array_equal(decoded(OneBit(), payload, 9), sent)
    assert np.array_equal(residual, values - sent)


# -- Casts


def halves():
    """Every float16 that is finite, what lies halfway between two, and its neighbours."""
    finite = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype("float32")
    halfway = (finite[1:] + finite[:-1]) / 2
    beside = [np.nextafter(halfway, np.float32(to)) for to in (0, 1e9)]
    positive = np.concatenate([finite, halfway, *beside])
    return np.concatenate([positive, -positive])


def test_fp16_rounds_as_numpy_does() -> None:
    values = halves()
    assert Float16().encode(values).tobytes() == values.astype("float16").tobytes()


@given(values=hnp.arrays("uint32", st.integers(1, 200)).map(lambda bits: bits.view("float32")))
def test_fp16_of_any_float32_is_numpys_cast_but_for_overflow(values) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        expected = values.astype("float16")
        expected[np.isinf(expected) & np.isfinite(values) & (values > 0)] = 65504
        expected[np.isinf(expected) & np.isfinite(values) & (values < 0)] = -65504
    np.testing.assert_array_equal(Float16().encode(values).view("float16"), expected)


def test_fp16_sends_what_is_beyond_its_range_in_later_rounds() -> None:
    values, residual = np.float32([1e5, -70000, 1]), np.zeros(3, "float32")
    first = decoded(Float16(), Float16().encode(values, residual), 3)
    second = decoded(Float16(), Float16().encode(0 * values, residual), 3)
    assert first.tolist() == [65504, -65504, 1]
    np.testing.assert_allclose(first + second, values, rtol=1e-3)


def rounded_to_bf16(value):
    """To nearest, ties to even, by the two neighbours in float64."""
    bits = int(np.float32(value).view("uint32"))
    low, high = (np.uint32(b).view("float32") for b in (bits & ~0xFFFF, (bits & ~0xFFFF) + 0x10000))
    below, above = abs(float(value) - float(low)), abs(float(high) - float(value))
    if below == above:
        return low if not (bits >> 16) & 1 else high
    return low if below < above else high


@settings(max_examples=50)
@given(values=arrays(limit=float(np.float32(1e30)), max_size=50))
@example(values=np.uint32([0x3F808000, 0x3F818000, 0x3F808001, 0x00008000]).view("float32"))
def test_bf16_rounds_to_nearest_even(values) -> None:
    residual = np.zeros(values.size, "float32")
    out = decoded(BFloat16(), BFloat16().encode(values, residual), values.size)
    assert out.tolist() == [rounded_to_bf16(value) for value in values]
    assert np.array_equal(out.astype("float64") + residual, values)


# -- Some of the values


@settings(max_examples=200)
@given(
    seed=st.integers(0, 999),
    size=st.integers(1, 30000),
    ratio=st.floats(0.001, 1),
    coarse=st.booleans(),
)
def test_topk_chooses_the_largest_and_the_first_among_equals(seed, size, ratio, coarse) -> None:
    values = gradients(size, seed=seed)
    if coarse:
        values = np.round(values, 1)  # many ties, many zeros
    codec = TopK(ratio)
    count = codec.encode(values).size // 8
    chosen = codec.encode(values)[: 4 * count].view("uint32")
    assert count == min(size, max(1, int(np.ceil(ratio * size))))
    expected = np.argsort(-np.abs(values), kind="stable")[:count]
    assert chosen.tolist() == sorted(expected)


def test_topk_with_more_nans_than_it_may_send() -> None:
    values, residual = np.full(5000, np.nan, "float32"), np.zeros(5000, "float32")
    out = decoded(TopK(0.01), TopK(0.01).encode(values, residual), 5000)
    assert np.count_nonzero(np.isnan(out)) == 50 and not residual.any()


@pytest.mark.parametrize("indices", [[5, 5], [6, 5], [5, 20], [2**32 - 1, 0], [0, 2**32 - 1]])
def test_topk_refuses_indices_that_it_would_not_send(indices) -> None:
    payload = TopK(0.1).encode(gradients(20))
    payload[:8] = np.array(indices, "uint32").view("uint8")
    with pytest.raises(ProtocolError, match="not ascending or not below 20"):
        decoded(TopK(0.1), payload, 20)


def test_randomk_takes_one_of_each_run_and_each_equally_often() -> None:
    codec, size, count, rounds = RandomK(0.1, seed=3), 105, 11, 4000
    starts = [i * size // count for i in range(count)]
    counts = np.zeros(size)
    for round_ in range(rounds):
        out = decoded(codec, codec.encode(np.ones(size, "float32"), None, round_), size)
        assert np.add.reduceat(out, starts).tolist() == [1] * count
        counts += out
    # Runs have 9 or 10 elements; six standard deviations of a count are 120.
    assert counts.min() > rounds / 10 - 120 and counts.max() < rounds / 9 + 120


def mix(number):
    """SplitMix64 in Python's integers."""
    number = (number + 0x9E3779B97F4A7C15) % 2**64
    number = (number ^ number >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    number = (number ^ number >> 27) * 0x94D049BB133111EB % 2**64
    return number ^ number >> 31


@pytest.mark.parametrize(("seed", "round_"), [(0, 0), (7, 12), (2**53 - 1, 10**9)])
def test_randomk_choice_is_fixed_for_all_releases_and_machines(seed, round_) -> None:
    payload = RandomK(0.1, seed).encode(np.arange(45, dtype="float32"), None, round_)
    nonce = mix((mix(seed) + round_) % 2**64)
    starts = [i * 45 // 5 for i in range(5)]
    expected = [start + mix((nonce + i) % 2**64) % 9 for i, start in enumerate(starts)]
    assert payload[:8].view("uint64") == nonce
    assert payload[8:].view("float32").tolist() == expected


def test_randomk_needs_no_seed_to_decode() -> None:
    values = gradients(1000)
    payload = RandomK(0.1, seed=7).encode(values, None, 12)
    out = decoded(RandomK(0.1, seed=8), payload, 1000)
    assert np.count_nonzero(out) == 100 and np.array_equal(out[out != 0], values[out != 0])


# -- Options


def test_codec_of_takes_what_mxnet_takes() -> None:
    assert codec_of({"type": "2bit"}).threshold == 0.5
    assert codec_of({"type": "2bit", "threshold": "0.25"}).threshold == 0.25
    assert codec_of({"type": "topk", "ratio": 0.5}).ratio == 0.5
    assert codec_of({"type": "randomk", "seed": "3"}).seed == 3
    assert repr(codec_of({"type": "randomk"})) == "RandomK(ratio=0.01, seed=0)"
    assert [codec_of({"type": name}).name for name in CODECS] == list(CODECS)


@pytest.mark.parametrize(
    ("params", "texts"),
    [
        ({}, ["no type", "2bit, 1bit, fp16, bf16, topk, randomk"]),
        ({"type": "3bit"}, ["unknown type '3bit'", "2bit, 1bit"]),
        ("2bit", ["'2bit'", "give a dict"]),
        ({"type": "1bit", "threshold": 1}, ["no option 'threshold'; it has none"]),
        ({"type": "2bit", "threshold": "0"}, ["threshold is '0'", "positive"]),
        ({"type": "2bit", "threshold": 1e-60}, ["positive number that float32 can hold"]),
        ({"type": "2bit", "threshold": "nan"}, ["threshold is 'nan'"]),
        (
            {"type": "randomk", "ratio": "much", "seed": 1.5, "k": 3},
            ["ratio is 'much'", "at most 1", "seed is 1.5", "whole number", "no option 'k'"],
        ),
        ({"type": "randomk", "ratio": 1.01, "seed": "inf"}, ["ratio is 1.01", "seed is 'inf'"]),
    ],
)
def test_codec_of_says_all_that_is_wrong(params, texts) -> None:
    with pytest.raises(UsageError) as raised:
        codec_of(params)
    for text in texts:
        assert text in str(raised.value)
