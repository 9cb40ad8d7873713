"""What a terminal shows of a job, by an emulator of one: bars stay in place whatever happens."""

import itertools

import pyte
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baryon.scheduler.observers.events import Notice, TaskOutput
from baryon.scheduler.observers.screen import Screen, Size

NAMES = {f"worker-{rank}": f"worker {rank}" for rank in range(12)}


class Terminal:
    """A terminal on which both streams are, and a screen that writes to it."""

    def __init__(self, columns=80, rows=24, names=4, has_colours=False):
        self.size = Size(columns, rows)
        self.seen = pyte.HistoryScreen(columns, rows, history=10_000)
        self.stream = pyte.ByteStream(self.seen)
        chosen = dict(list(NAMES.items())[:names])
        self.screen = Screen(chosen, (has_colours, has_colours))
        self.nbytes = 0

    def write(self, *pieces):
        self._feed(self.screen.write(pieces, (self.size, self.size)))

    def clear(self):
        self._feed(self.screen.clear())

    def _feed(self, chunks):
        for chunk in chunks:
            self.nbytes += len(chunk.data)
            self.stream.feed(chunk.data.replace(b"\n", b"\r\n"))  # as the kernel does

    def bar(self, rank, text):
        self.write(TaskOutput(0.0, f"worker-{rank}", True, True, text.encode()))

    def line(self, rank, text, is_error=False):
        self.write(TaskOutput(0.0, f"worker-{rank}", is_error, False, f"{text}\n".encode()))

    def resize(self, columns):
        self.size = Size(columns, self.size.rows)
        self.seen.resize(columns=columns)

    @property
    def lines(self):
        """All that was ever shown and still is there to see."""
        gone = ["".join(row[x].data for x in range(len(row))) for row in self.seen.history.top]
        lines = [line.rstrip() for line in [*gone, *self.seen.display]]
        while lines and not lines[-1]:
            lines.pop()
        return lines


BAR = "epoch 3 of 10, a description that the user likes long: {:3}%|#######   | {}/100 [00:03]"


@pytest.mark.parametrize("columns", [200, 80, 40, 20])
@pytest.mark.parametrize("workers", [1, 4])
def test_bars_stay_in_place_however_narrow_it_is(columns, workers):
    terminal = Terminal(columns)
    for step in range(100):
        for rank in range(workers):
            terminal.bar(rank, BAR.format(step, step))
    bar = BAR.format(99, 99)
    shown = [f"worker {rank} | {bar}"[: columns - 1].rstrip() for rank in range(workers)]
    assert terminal.lines == shown


def test_lines_come_above_the_bars_and_stay():
    terminal = Terminal(40, 10)
    for step in range(30):
        for rank in range(4):
            terminal.bar(rank, BAR.format(step, step))
        terminal.line(step % 4, f"loss {step}", is_error=False)
        terminal.write(Notice(0.0, f"news {step}"))
    bars = [f"worker {rank} | {BAR}"[:39] for rank in range(4)]
    lines = [(f"worker {n % 4} | loss {n}", f"baryon: news {n}") for n in range(30)]
    assert terminal.lines == [*itertools.chain(*lines), *bars]


def test_a_bar_that_has_become_a_line_is_a_bar_no_longer():
    terminal = Terminal()
    terminal.bar(0, "50%")
    terminal.bar(1, "40%")
    terminal.line(0, "100%", is_error=True)
    assert terminal.lines == ["worker 0 | 100%", "worker 1 | 40%"]
    terminal.bar(1, "")
    assert terminal.lines == ["worker 0 | 100%"]


def test_what_is_printed_meanwhile_leaves_the_bar_alone():
    terminal = Terminal()
    terminal.bar(0, "50%")
    terminal.line(0, "loss 1", is_error=False)
    assert terminal.lines == ["worker 0 | loss 1", "worker 0 | 50%"]


def test_bars_of_one_worker_below_each_other():
    terminal = Terminal()
    terminal.bar(0, "epoch 1\nbatch 7")
    terminal.bar(1, "epoch 2")
    terminal.bar(0, "epoch 1\nbatch 8")
    assert terminal.lines == ["worker 0 | epoch 1", "worker 0 | batch 8", "worker 1 | epoch 2"]
    terminal.clear()
    assert terminal.lines == []


@pytest.mark.parametrize(
    ("rows", "shown"),
    [
        (24, [f"worker {rank} | 9%" for rank in range(7)] + ["... and 5 more"]),
        (6, ["worker 0 | 9%", "worker 1 | 9%", "... and 10 more"]),
        (3, ["worker 0 | 9%"]),
        (1, ["worker 0 | 9%"]),
    ],
)
def test_of_many_workers_as_many_bars_as_there_is_room_for(rows, shown):
    terminal = Terminal(80, rows, names=12)
    for step in range(10):
        for rank in range(12):
            terminal.bar(rank, f"{step}%")
    assert [line.strip() for line in terminal.lines] == shown


@pytest.mark.parametrize("columns", [30, 120])
def test_the_terminal_may_be_resized(columns):
    """One that cuts long rows, as pyte does; those that wrap them are as good (see the module)."""
    terminal = Terminal(80)
    for step in range(10):
        if step == 5:
            terminal.resize(columns)
        for rank in range(4):
            terminal.bar(rank, BAR.format(step, step))
        terminal.line(0, f"loss {step}")
    bars = [f"worker {rank} | {BAR.format(9, 9)}"[: columns - 1].rstrip() for rank in range(4)]
    assert terminal.lines == [f"worker 0 | loss {step}" for step in range(10)] + bars


def test_rows_that_a_terminal_has_wrapped_are_wiped_away_as_well():
    terminal = Terminal(80)
    terminal.bar(0, BAR.format(1, 1))
    terminal.stream.feed(b"\r" + b"x" * 200 + b"\x1b[2A\r")  # what is left of it when narrowed
    terminal.bar(0, "50%")
    assert terminal.lines == ["worker 0 | 50%"]


@pytest.mark.parametrize("columns", [40, 41])
def test_characters_count_as_the_columns_they_take(columns):
    terminal = Terminal(columns)
    for step in range(3):
        terminal.bar(0, f"{step} " + "第三" * 50)
        terminal.bar(1, f"{step} " + "e\u0301" * 100)
    first, second = terminal.lines
    assert first.startswith("worker 0 | 2 第")
    assert second == "worker 1 | 2 " + "\u00e9" * (columns - 1 - 13)  # so pyte has it


def test_colours_go_through_and_end_with_the_bar_and_nothing_else_goes_through():
    terminal = Terminal(40, has_colours=True)
    terminal.bar(0, "\x1b[32m" + "green" * 20)
    terminal.bar(1, "up \x1b[2A\x1b]0;title\x07 \x1b[2J and \t\x08\x00away")
    assert terminal.seen.buffer[0][11].fg == "green"
    assert terminal.seen.buffer[1][11].fg == "default"
    assert terminal.lines[0] == ("worker 0 | " + "green" * 20)[:39]
    assert terminal.lines[1].startswith("worker 1 | up ")
    assert len(terminal.lines) == 2


def test_a_bar_that_has_not_moved_is_not_drawn_again():
    terminal = Terminal()
    terminal.bar(0, "50%")
    before = terminal.nbytes
    terminal.bar(0, "50%")
    assert terminal.nbytes == before


def test_bars_are_where_the_terminal_is():
    """`2> file` or `> file`: the file gets neither bars nor escape sequences."""
    size = Size(80, 24)
    for is_terminal in (True, False):
        sizes = (None, size) if is_terminal else (size, None)
        screen = Screen(NAMES, (False, False))
        written = screen.write([TaskOutput(0.0, "worker-0", True, True, b"50%")], sizes)
        assert [chunk.is_error for chunk in written] == ([True] if is_terminal else [])
        (line,) = screen.write(
            [TaskOutput(0.0, "worker-0", not is_terminal, False, b"a\n")], sizes
        )[:1]
        assert b"\x1b" not in line.data or line.is_error is is_terminal


PIECES = st.one_of(
    st.tuples(st.just("bar"), st.integers(0, 3), st.text("ab 第\x1b\r", max_size=60)),
    st.tuples(st.just("line"), st.integers(0, 3), st.text("xyz", min_size=1, max_size=15)),
    st.tuples(st.just("resize"), st.sampled_from([30, 60, 90]), st.just("")),
)


@given(steps=st.lists(PIECES, max_size=40))
def test_no_line_is_ever_lost_and_no_bar_is_left_over(steps):
    terminal = Terminal(60, 12)
    lines = []
    for kind, number, text in steps:
        if kind == "bar":
            terminal.bar(number, text)
        elif kind == "line":
            terminal.line(number, text, is_error=True)
            lines.append(f"worker {number} | {text}")
        else:
            terminal.resize(number)
    terminal.clear()
    assert terminal.lines == lines
