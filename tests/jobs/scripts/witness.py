"""Runs a worker's script, and notes how it ended: its exit code, and how long its end took.

The job does not reach the script, so that it ends by itself also when another worker has failed
before it. The script notes in the file MOMENT when it began to end, and the code that it should
end with; what becomes of it is in RESULT. Of the time, that does not count in which its main thread
waited for a processor (proc_pid_schedstat(5)): the machine may be busy.
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
os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
end = time.time() - int(Path(f"/proc/{child.pid}/schedstat").read_text().split()[1]) / 1e9
code = child.wait()
code = code if code >= 0 else 128 - code  # as shells have it
moment = folder / f"moment-{rank}"
expected, began = json.loads(moment.read_text()) if moment.exists() else (0, end)
result = folder / f"result-{rank}"
result.with_suffix(".part").write_text(json.dumps([expected, code, end - began]))
result.with_suffix(".part").rename(result)
sys.exit(code)
