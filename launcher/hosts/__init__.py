"""Work on a job's hosts before it starts and after it ends: check them, send files, fetch results.

`Survey` runs probe.py on each host, and preflight.py judges its reports. shipping.py sends what
manifest.py lists: delivery.py here talks to receiver.py on the host. In the other direction,
collect.py here talks to sender.py on the host. This module imports nothing, because probe, greeter,
receiver and sender run on hosts that may have no other part of Baryon.
"""
