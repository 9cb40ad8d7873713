"""What the user sees of a job."""

import errno
import io
import subprocess
import sys
import threading
import types

import msgspec
import pytest

from baryon.scheduler.control import Host, Task
from baryon.scheduler.observers.console import Console
from baryon.scheduler.observers.events import JobPaused, Notice, TaskOutput
from tests.waiting import LIMIT_S, wait_until


class Stream(io.BytesIO):
    """A standard stream; ``is_terminal`` as it is told to be."""

    is_terminal = False

    def isatty(self):
        return self.is_terminal

    def take(self):
        """What has been written since the last call."""
        data = self.getvalue()
        self.seek(0)
        self.truncate()
        return data


class Broken(Stream):
    """Every write to it fails in the same way."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def write(self, data):
        raise self.error


class Paused(Stream):
    """Whoever reads this has pressed Ctrl-S."""

    def __init__(self):
        super().__init__()
        self.goes_on = threading.Event()

    def write(self, data):
        assert self.goes_on.wait(LIMIT_S)
        return super().write(data)


class Prompt(Console):
    """Returns when what it was given has been written."""

    def __init__(self, job, on_broken_pipe=lambda: None):
        super().__init__(job, on_broken_pipe)

    def _put(self, event):
        super()._put(event)
        wait_until_written(self)


def wait_until_written(console):
    wait_until(lambda: console._backlog.nbytes <= 0)


def fake_sys(out, err):
    """A module sys of the console's own: pytest changes the real one's streams as it likes."""
    stdout, stderr = (types.SimpleNamespace(buffer=s, flush=s.flush) for s in (out, err))
    return types.SimpleNamespace(stdout=stdout, stderr=stderr)


@pytest.fixture
def streams(monkeypatch):
    """Standard output and error, neither of them a terminal."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    out, err = Stream(), Stream()
    monkeypatch.setattr("baryon.scheduler.observers.console.sys", fake_sys(out, err))
    return types.SimpleNamespace(out=out, err=err)


@pytest.fixture
def terminal(streams, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    streams.out.is_terminal = streams.err.is_terminal = True
    return streams


@pytest.fixture
def console(streams, make_job, tmp_path):
    tasks = (Task("server", 0, 0, 0), Task("worker", 0, 0, 0), Task("worker", 10, 0, 1))
    (tmp_path / "logs").mkdir()
    job = make_job(hosts=(Host("a", 2),), tasks=tasks, log_dir=str(tmp_path / "logs"))
    console = Prompt(job)
    yield console
    console.close()


def out(data, task="worker-0"):
    return TaskOutput(0.0, task, False, False, data)


def err(data, task="worker-0"):
    return TaskOutput(0.0, task, True, False, data)


def passing(data, task="worker-0", is_error=False):
    return TaskOutput(0.0, task, is_error, True, data)


# -- lines ------------------------------------------------------------------------------------


def test_every_line_says_who_wrote_it_and_they_are_aligned(console, streams):
    console.take(out(b"a\n", "worker-10"))
    console.take(out(b"b\n\nc\n", "worker-0"))
    assert streams.out.take() == b"worker 10 | a\n worker 0 | b\n worker 0 | \n worker 0 | c\n"
    assert streams.err.take() == b""


def test_errors_go_to_standard_error(console, streams):
    console.take(err(b"careful\n", "server-0"))
    assert (streams.out.take(), streams.err.take()) == (b"", b" server 0 | careful\n")


def test_bytes_that_are_no_text_pass_through(console, streams, tmp_path):
    console.take(out(b"caf\xe9 \x00\r \xf0\n"))
    assert streams.out.take() == b" worker 0 | caf\xe9 \x00\r \xf0\n"


def test_what_the_scheduler_says_goes_to_standard_error(console, streams):
    console.take(Notice(0.0, "worker 0 failed; its last lines were\n    caf\udce9"))
    assert streams.err.take() == b"baryon: worker 0 failed; its last lines were\n    caf?\n"
    assert streams.out.take() == b""


# -- terminals --------------------------------------------------------------------------------


def test_on_a_terminal_tasks_have_colours_of_their_own(terminal, console):
    console.take(out(b"a\n", "worker-0"))
    console.take(out(b"a\n", "worker-10"))
    first, second = terminal.out.take().splitlines()
    assert first.startswith(b"\x1b[")
    assert first.endswith(b" worker 0 | \x1b[0ma")
    assert first[:5] != second[:5]
    console.take(Notice(0.0, "oh"))
    assert terminal.err.take() == b"\x1b[31mbaryon: \x1b[0moh\n"


def test_no_task_is_red(make_job, terminal, tmp_path):
    console = Prompt(make_job(num_workers=20, log_dir=str(tmp_path)))
    for rank in range(20):
        console.take(out(b"a\n", f"worker-{rank}"))
    console.close()
    assert b"\x1b[31m" not in terminal.out.take()


def test_no_color_is_heeded(console, terminal, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    console.take(out(b"a\n"))
    console.take(Notice(0.0, "oh"))
    assert terminal.out.take() == b" worker 0 | a\n"
    assert terminal.err.take() == b"baryon: oh\n"


def test_each_stream_is_coloured_by_what_it_is_itself(make_job, terminal, tmp_path):
    terminal.out.is_terminal = False
    console = Prompt(make_job(log_dir=str(tmp_path)))
    console.take(out(b"a\n"))
    console.take(err(b"a\n"))
    console.close()
    assert b"\x1b" not in terminal.out.take()
    assert b"\x1b" in terminal.err.take()


@pytest.mark.parametrize("term", ["dumb", "unknown", ""])
def test_a_terminal_that_knows_no_escape_sequences_gets_none(
    make_job, terminal, monkeypatch, tmp_path, term
):
    """As in an Emacs shell. Progress could not be shown in place, so it is not."""
    monkeypatch.setenv("TERM", term)
    console = Prompt(make_job(log_dir=str(tmp_path)))
    console.take(passing(b"10%"))
    console.take(out(b"a\n"))
    console.take(Notice(0.0, "oh"))
    console.close()
    assert terminal.out.take() == b"worker 0 | a\n"
    assert terminal.err.take() == b"baryon: oh\n"


def test_progress_is_shown_on_a_terminal_until_the_end(make_job, terminal, monkeypatch, tmp_path):
    """What it looks like is the screen's (test_screen.py)."""
    monkeypatch.setenv("NO_COLOR", "1")
    console = Prompt(make_job(log_dir=str(tmp_path)))
    console.take(passing(b"10%", is_error=True))
    assert terminal.err.take() == b"\rworker 0 | 10%\x1b[J\r"
    console.take(out(b"a\n"))
    assert terminal.err.take() == b"\r\x1b[J\rworker 0 | 10%\x1b[J\r", "nothing is in its way"
    assert terminal.out.take() == b"worker 0 | a\n"
    console.close()
    assert terminal.err.take() == b"\r\x1b[J"


def test_a_paused_job_leaves_the_terminal_to_others(console, terminal, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    console.take(passing(b"10%"))
    terminal.err.take()
    console.take(JobPaused(0.0))
    assert terminal.err.take() == b"\r\x1b[J"
    console.take(out(b"a\n", "worker-10"))
    assert terminal.err.take().endswith(b" worker 0 | 10%\x1b[J\r"), "and is drawn again"


def test_progress_is_not_shown_elsewhere(console, streams):
    console.take(passing(b"10%"))
    console.take(passing(b"10%", is_error=True))
    assert (streams.out.take(), streams.err.take()) == (b"", b"")


# -- readers that are slow, or have gone, or have no room --------------------------------------


@pytest.fixture
def start(make_job, tmp_path, monkeypatch):
    """Make a console that writes to these streams."""
    consoles = []

    def start(out, err, on_broken_pipe=None):
        monkeypatch.setattr("baryon.scheduler.observers.console.sys", fake_sys(out, err))
        job = make_job(num_workers=2, num_servers=0, log_dir=str(tmp_path))
        consoles.append(Console(job, on_broken_pipe or (lambda: None)))
        return consoles[-1]

    yield start
    for console in consoles:
        console.close()


def test_a_paused_terminal_holds_up_nothing_but_itself(start, tmp_path):
    stream = Paused()
    console = start(stream, Stream())
    for number in range(1000):
        console.take(out(b"%d\n" % number))
    assert stream.getvalue() == b""
    stream.goes_on.set()
    console.close()
    assert stream.take() == b"".join(b"worker 0 | %d\n" % number for number in range(1000))


def test_what_a_paused_terminal_cannot_show_is_counted(start, tmp_path, monkeypatch):
    monkeypatch.setattr("baryon.scheduler.observers.console._MAX_WAITING_NBYTES", 100)
    stream, errors = Paused(), Stream()
    console = start(stream, errors)
    for _ in range(50):
        console.take(out(b"123456789\n"))
    console.take(Notice(0.0, "what the scheduler says is never left out"))
    stream.goes_on.set()
    wait_until_written(console)
    shown = stream.take().count(b"\n")
    assert 10 <= shown < 50
    console.take(out(b"last\n"))
    console.close()
    assert stream.take() == b"worker 0 | last\n"
    assert f"{50 - shown} lines were not shown; they are in {tmp_path}".encode() in errors.take()


def test_a_reader_that_has_gone_is_told_of_once(start, tmp_path):
    told = []
    console = start(Broken(BrokenPipeError()), Broken(BrokenPipeError()), lambda: told.append(1))
    for _ in range(3):
        console.take(out(b"a\n"))
        console.take(err(b"a\n"))
    console.close()
    assert told == [1]


def test_a_full_disk_is_mentioned_once_and_nothing_is_lost_but_what_had_no_room(start, tmp_path):
    told, errors = [], Stream()
    full = Broken(OSError(errno.ENOSPC, "No space left on device"))
    console = start(full, errors, lambda: told.append(1))
    console.take(out(b"a\n"))
    wait_until_written(console)
    console.take(out(b"b\n"))
    console.take(err(b"c\n"))
    console.close()
    assert told == []
    said, rest = errors.take().split(b"\n", 1)
    assert said.startswith(b"baryon: cannot write to standard output any more: No space left")
    assert rest == b"worker 0 | c\n"


def test_it_is_mentioned_also_if_the_job_ends_meanwhile(start):
    stream, errors = Paused(), Stream()
    stream.write = lambda data: stream.goes_on.wait(LIMIT_S) and Broken.write(full, data)
    full = Broken(OSError(errno.ENOSPC, "No space left on device"))
    console = start(stream, errors)
    console.take(out(b"a\n"))
    wait_until(lambda: console._backlog.busy_s > 0, "the thread to be in its write")
    closing = threading.Thread(target=console.close)
    closing.start()
    wait_until(
        lambda: not console._backlog._items.empty(), "close() to put its own end into the queue"
    )
    stream.goes_on.set()
    closing.join(LIMIT_S)
    assert b"No space left" in errors.take()


def test_streams_that_were_closed_before_the_start_are_left_alone(make_job, monkeypatch, tmp_path):
    """As with `launch.py ... >&-`."""
    none = types.SimpleNamespace(stdout=None, stderr=None)
    monkeypatch.setattr("baryon.scheduler.observers.console.sys", none)
    console = Prompt(make_job(log_dir=str(tmp_path)))
    console.take(out(b"a\n"))
    console.take(Notice(0.0, "oh"))
    assert console.close() == []
    assert not console._backlog._thread.is_alive()


def test_the_end_of_a_job_does_not_wait_for_ever_for_a_reader(start, monkeypatch, tmp_path, capfd):
    stream = Paused()
    console = start(stream, Stream())
    monkeypatch.setattr(console, "_job", msgspec.structs.replace(console._job, timeout_s=0.05))
    console.take(out(b"a\n"))
    console.close()
    said = capfd.readouterr().err
    assert said.startswith(
        "baryon: the reader of this output has taken nothing for 0 s (--timeout), so 3 "
    )
    assert said.endswith(f"bytes are not shown; they are in {tmp_path}\n")
    stream.goes_on.set()
    console._backlog._thread.join(LIMIT_S)


def test_a_write_that_is_stuck_does_not_keep_python_from_ending(make_job, tmp_path):
    job = make_job(log_dir=str(tmp_path), timeout_s=0.2)
    script = """if True:
        import msgspec, sys
        from baryon.scheduler.control import Job
        from baryon.scheduler.observers.console import Console
        from baryon.scheduler.observers import TaskOutput
        console = Console(msgspec.json.decode(sys.argv[1], type=Job), lambda: None)
        print("first", flush=True)
        console.take(TaskOutput(0.0, "worker-0", False, False, 100_000 * b"x\\n"))
        console.close()
        sys.exit(3)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", script, msgspec.json.encode(job)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.wait(LIMIT_S) == 3
    written, said = process.communicate()
    assert written.startswith(b"first\nworker 0 | x\n")
    assert said.startswith(b"baryon: the reader of this output has taken nothing")
