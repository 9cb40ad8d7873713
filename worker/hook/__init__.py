"""A folder for PYTHONPATH: its sitecustomize.py is how a job reaches the user's Python."""
