"""Runs a worker's script, and notes how it ended: its exit code, and how long its end took, also
in seconds of the processor, for machines that have others to run.

The job does not reach the script, so that it ends by itself also when another worker has failed
before it. The script notes in the file MOMENT when it began to end, and the code that it should
end with; what becomes of it is in RESULT.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

folder, rank = Path(os.environ["ENDS_FOLDER"]), os.environ["DMLC_WORKER_ID"]
signal.signal(signal.SIGTERM, lambda number, frame: None)
signal.signal(signal.SIGINT, lambda number, frame: None)
child = subprocess.Popen([sys.executable, *sys.argv[1:]], start_new_session=True)
_, status, usage = os.wait4(child.pid, 0)
end = time.time()
code = 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
used = usage.ru_utime + usage.ru_stime
moment = folder / f"moment-{rank}"
expected, began, before = json.loads(moment.read_text()) if moment.exists() else (0, end, used)
result = folder / f"result-{rank}"
result.with_suffix(".part").write_text(json.dumps([expected, code, end - began, used - before]))
result.with_suffix(".part").rename(result)
sys.exit(code)
