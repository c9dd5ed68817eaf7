"""Attacks on a region that runs: everybody who should not get in tries to, by every route of its interface."""
