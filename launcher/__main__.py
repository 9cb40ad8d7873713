"""``python -m baryon.launcher`` is ``launch.py``."""

import sys

from . import main

sys.exit(main())
