"""What is known of cases in which the two stores do not do the same, and why.

A case that is in none of these tables is one where both stores are right. test_differential.py
holds each table to its word, so an entry that is out of date fails.
"""

from typing import Dict

__all__ = ["NATIVE_WRONG", "NOT_SERVED", "OURS_DIFFERS"]

# Ours is right and MXNet's own store is not.
NATIVE_WRONG: Dict[str, str] = {}

# MXNet's own store is right and ours is not, on purpose.
OURS_DIFFERS: Dict[str, str] = {}

# Ours is not right yet.
NOT_SERVED: Dict[str, str] = {}
