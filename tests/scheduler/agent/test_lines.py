"""How what a task writes is cut into lines: the same lines however the bytes happen to come."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from baryon.scheduler.agent.lines import CONTINUES, MAX_LINE_NBYTES, LineCutter


def cut(*chunks):
    """(what is kept, what is shown for a moment only) of a stream that comes in these chunks."""
    cutter = LineCutter()
    pieces = [piece for chunk in chunks for piece in cutter.feed(chunk)] + cutter.end()
    kept = b"".join(piece.data for piece in pieces if not piece.is_transient)
    return kept, [piece.data for piece in pieces if piece.is_transient]


def visible(stream):
    """What a terminal would have kept of a stream, were it wide enough."""
    lines = stream.split(b"\n")
    ended, last = lines[:-1], lines[-1]
    shown = [line.rstrip(b"\r").rpartition(b"\r")[2] + b"\n" for line in ended]
    rest = last.rstrip(b"\r").rpartition(b"\r")[2]
    is_wiped = b"\r" in last and not rest.strip()
    return b"".join(shown) + (rest + b"\n" if rest and not is_wiped else b"")


STREAMS = st.lists(
    st.sampled_from([b"a", b"bc", b"\n", b"\r", b"\r\n", b"10%", b"\xff\x00", b" "]), max_size=12
).map(b"".join)


@given(stream=STREAMS, cuts=st.lists(st.integers(0, 20), max_size=6))
@example(stream=b"abc\r\n", cuts=[4])
@example(stream=b"10%\r100%\r", cuts=[4])
def test_the_lines_that_are_kept_do_not_depend_on_the_chunks(stream, cuts):
    borders = [0, *sorted(min(place, len(stream)) for place in cuts), len(stream)]
    chunks = [stream[begin:end] for begin, end in zip(borders, borders[1:])]
    assert cut(*chunks)[0] == visible(stream)


@given(stream=st.binary(max_size=50).filter(lambda stream: b"\r" not in stream))
def test_without_carriage_returns_every_byte_is_kept(stream):
    expected = stream if not stream or stream.endswith(b"\n") else stream + b"\n"
    assert cut(stream) == (expected, [])
    assert cut(*(bytes([byte]) for byte in stream)) == (expected, [])


def test_whole_lines_are_passed_on_at_once_and_a_part_waits():
    cutter = LineCutter()
    assert cutter.feed(b"a\nb\nc") == [(False, b"a\nb\n")]
    assert cutter.feed(b"d") == []
    assert cutter.feed(b"\n") == [(False, b"cd\n")]


def test_a_last_line_without_newline_is_a_line():
    assert cut(b"a\nb") == (b"a\nb\n", [])


def test_nothing_makes_nothing():
    assert cut() == (b"", [])
    assert cut(b"", b"") == (b"", [])


def test_an_empty_line_is_a_line():
    assert cut(b"\n\n") == (b"\n\n", [])


def test_the_end_empties_the_cutter():
    cutter = LineCutter()
    cutter.feed(b"a")
    cutter.end()
    assert cutter.end() == []


# -- carriage returns -------------------------------------------------------------------------


def test_a_progress_bar_that_begins_with_a_return_is_shown_as_it_moves():
    kept, shown = cut(b"\r10%", b"\r50%", b"\r100%", b"\n")
    assert kept == b"100%\n"
    assert shown[:2] == [b"10%", b"50%"]


def test_a_progress_bar_that_ends_with_a_return_is_shown_as_it_moves():
    kept, shown = cut(b"10%\r", b"50%\r", b"done  \n")
    assert kept == b"done  \n"
    assert shown[:2] == [b"10%", b"50%"]


def test_of_many_steps_in_one_chunk_the_last_is_shown():
    assert cut(b"\r1%\r2%\r3%\r4%\n") == (b"4%\n", [])
    assert LineCutter().feed(b"1%\r2%\r3%\r")[-1] == (True, b"3%")


def test_lines_of_a_windows_program_are_lines():
    assert cut(b"a\r\nb\r\n") == (b"a\nb\n", [])


@pytest.mark.parametrize("chunks", [(b"a\r", b"\nb\n"), (b"a", b"\r", b"\n", b"b\n")])
def test_they_are_also_if_the_chunk_ends_between_return_and_newline(chunks):
    assert cut(*chunks)[0] == b"a\nb\n"


def test_the_last_state_of_a_progress_bar_is_kept_though_no_newline_follows():
    assert cut(b"50%\r", b"100%\r")[0] == b"100%\n"
    assert cut(b"\r50%", b"\r100%")[0] == b"100%\n"


@pytest.mark.parametrize("wipe", [b"\r     \r", b"\r     "])
def test_a_bar_that_wipes_itself_away_leaves_nothing(wipe):
    """As tqdm's with leave=False."""
    assert cut(b"\r50%", wipe) == (b"", [b"50%", b""])
    assert cut(b"\r50%", wipe, b"\rdone\n")[0] == b"done\n"


def test_a_bar_that_does_not_move_is_passed_on_once():
    assert cut(b"\r50%", b"\r50%", b"\r50%")[1] == [b"50%"]


# -- bars below each other --------------------------------------------------------------------


UP = b"\x1b[A"


def nested(outer, inner):
    """What tqdm writes for a bar at position 0 and one at position 1."""
    return [b"\r" + outer, b"\n\r" + inner + UP]


def test_bars_below_each_other_move_in_place():
    chunks = [chunk for step in range(100) for chunk in nested(b"outer", b"inner %d" % step)]
    kept, shown = cut(*chunks, b"\nover\n")
    assert kept == b"outer\nover\n"
    assert shown[:3] == [b"outer", b"outer\ninner 0", b"outer\ninner 1"]


def test_their_last_state_is_kept_when_something_else_is_written_below_them():
    chunks = [*nested(b"outer 0%", b"inner 0%"), *nested(b"outer 100%", b"       ")]
    assert cut(*chunks, b"\n")[0] == b"outer 0%\nouter 100%\n"
    assert cut(*chunks, b"\n", b"done\n")[0] == b"outer 0%\nouter 100%\ndone\n"


@given(cuts=st.lists(st.integers(0, 200), max_size=6))
def test_whatever_the_chunks(cuts):
    whole = b"".join(nested(b"a 1", b"b 1") + nested(b"a 2", b"b 2") + [b"\nc\n", b"d\n"])
    borders = [0, *sorted(min(place, len(whole)) for place in cuts), len(whole)]
    chunks = [whole[begin:end] for begin, end in zip(borders, borders[1:])]
    assert cut(*chunks)[0] == cut(whole)[0] == b"a 1\na 2\nc\nd\n"


def test_lines_that_are_written_anew_in_threes():
    """As a table that is printed again and again in the same place."""
    table = [b"x %d\ny %d\n" % (step, step) for step in range(50)]
    kept, shown = cut(table[0], *(b"\x1b[2A" + lines for lines in table[1:]))
    assert kept == b"x 0\ny 0\nx 49\ny 49\n"
    assert len(shown) == 49


def test_going_up_for_ever_takes_no_memory():
    cutter = LineCutter()
    for _ in range(1000):
        cutter.feed(UP + b"text")
    assert len(cutter._below) < 100


# -- very long lines --------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1000, 1 << 16, 1 << 20])
def test_a_very_long_line_comes_in_parts_with_a_mark_and_loses_nothing(size):
    cutter = LineCutter()
    line = b"0123456789" * 50_000
    pieces = []
    for begin in range(0, len(line), size):
        pieces += cutter.feed(line[begin : begin + size])
    pieces += cutter.feed(b"\n")
    assert not any(piece.is_transient for piece in pieces)
    parts = b"".join(piece.data for piece in pieces).splitlines()
    assert len(parts) == -(-len(line) // MAX_LINE_NBYTES)
    assert all(part.endswith(CONTINUES) for part in parts[:-1])
    texts = [*(part[: -len(CONTINUES)] for part in parts[:-1]), parts[-1]]
    assert max(map(len, texts)) == MAX_LINE_NBYTES
    assert b"".join(texts) == line


def test_a_line_of_just_that_length_has_no_mark():
    line = b"x" * MAX_LINE_NBYTES
    assert cut(line + b"\n")[0] == cut(line, b"\n")[0] == cut(line)[0] == line + b"\n"


@pytest.mark.parametrize("bar", [b"\r10%", b"10%\r"])
def test_a_fast_progress_bar_is_not_a_very_long_line(bar):
    """64 KiB of it may be waiting in the pipe when the agent comes to read."""
    kept, shown = cut(bar * MAX_LINE_NBYTES, b"\ndone\n")
    assert kept.endswith(b"10%\ndone\n")
    assert len(kept) < 100
    assert shown in ([], [b"10%"])


def test_a_bar_of_endless_steps_takes_no_memory():
    cutter = LineCutter()
    for step in range(2000):
        pieces = cutter.feed(b"\r%099d" % step)
        assert all(piece.is_transient for piece in pieces)
    assert len(cutter._rest) < 1000
