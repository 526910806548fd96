"""Claim, run, checkpoint, settle: what happens to jobs while a process works on them."""
