"""
What may happen in a casino's back office, as pure decisions over folded events.

One module per aggregate, always in the order Events → State and evolve → Decisions. An event's tag is the storage format and
stands for ever; so does the shape of its fields. Nothing here asks a clock, draws a random number, logs or waits.
"""
