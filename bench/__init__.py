"""Figures, printed by `make bench`: speed against peers in the same run, and size. Nothing here is a test."""
