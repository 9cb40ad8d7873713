"""``python -m baryon.launcher`` is ``launch.py``."""

import sys

from baryon.entry import launch

sys.exit(launch())
