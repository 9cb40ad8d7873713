"""What runs jobs somewhere: not part of the package ``baryon``, run from the repository root."""
