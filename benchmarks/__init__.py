"""The figures that Baryon claims: each is one command, against a peer, in the same run."""
