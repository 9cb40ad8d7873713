"""What is done on a job's hosts before it starts: look at them, and bring them what they lack.

`Survey` runs probe.py on each host, preflight.py judges what it reports, and shipping.py sends what
manifest.py lists to receiver.py there, by the protocol of delivery.py. Nothing is imported here: a
probe and a receiver run on hosts that have no other part of Baryon.
"""
