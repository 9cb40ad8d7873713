"""How the end of a task becomes a sentence for the user and the exit code of the job. Pure."""

import signal

from .control.messages import Exited
from .state import TaskState

__all__ = ["describe_exit", "exit_code_of", "has_hung", "last_line", "own_code_of"]

_MAX_LINE = 200  # characters of a task's last one


def has_hung(state: TaskState, message: Exited) -> bool:
    """Whether the agent killed the task because its process hung after its goodbye."""
    return (
        state.is_gone
        and message.was_late
        and message.code in (-signal.SIGKILL, 128 + signal.SIGKILL)
    )


def describe_exit(state: TaskState, message: Exited) -> str:
    """How a task ended, and the last line of its output, all of which was shown before."""
    if message.error:
        return f"{state.where} could not be started: {message.error}"
    if has_hung(state, message):
        how = f"ended with code {state.own_code}, but its process {state.pid} hung and was killed,"
    elif message.code == 0 and state.own_code:
        how = f"failed with code {state.own_code}, though its command exited with 0"
    elif message.code == 0 and state.owes_goodbye:
        how = (
            "exited with code 0 without leaving the job, as os._exit does, so its last pushes "
            "may be lost (let the script return, or call sys.exit),"
        )
    elif message.code < 0:
        name = signal_name(-message.code)
        how = f"was killed by signal {-message.code} ({name})"
        if name == "SIGKILL" and message.oom_kills:
            how += ", because its host or its cgroup ran out of memory,"
        elif name == "SIGKILL":
            how += ", which Baryon did not send,"
    else:
        how = f"exited with code {message.code}"
    text = f"{state.where} {how} after {message.seconds:.1f} s"
    if not state.last_line:
        return f"{text}; it wrote nothing"
    return f"{text}; its last line was: {state.last_line}"


def last_line(data: bytes) -> str:
    """The last line that is not blank, shortened; empty if there is none."""
    lines = data.rstrip().splitlines()[-1:]
    text = "".join(line.decode(errors="replace").strip() for line in lines)
    return text if len(text) <= _MAX_LINE else f"{text[:_MAX_LINE]}..."


def signal_name(signum: int) -> str:
    """``SIGKILL`` and so on; real-time signals have no names of their own."""
    try:
        return signal.Signals(signum).name
    except ValueError:
        return f"real-time signal {signum}"


def own_code_of(state: TaskState, message: Exited) -> int:
    """The exit code that counts for a task.

    If its process hung after its goodbye, the code that its goodbye announced counts. Otherwise
    its process's code counts or, if that is 0, the one that its goodbye announced.
    """
    return state.own_code if has_hung(state, message) else message.code or state.own_code


def exit_code_of(code: int) -> int:
    """The job's exit code for a failed task's: 128 + N for signal N, as in shells.

    A task that ended while it was needed has failed even if its code is 0; the job's is 1 then.
    """
    if code < 0:
        return 128 - code
    return code or 1
