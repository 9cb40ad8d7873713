"""What is done on a job's hosts before it starts, and after its end: look at them, bring them what
they lack, fetch results.

`Survey` runs probe.py on each host, preflight.py judges what it reports, and shipping.py sends what
manifest.py lists to receiver.py there, by the protocol of delivery.py; collect.py fetches what
sender.py finds there. Nothing is imported here: probe, receiver and sender run on hosts that have
no other part of Baryon.
"""
