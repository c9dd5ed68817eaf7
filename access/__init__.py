"""
Who may do what: one seam, asked by the decider on the folded state and by every read.

Roles are plain sets of actions for now; attributes join them behind the same two functions.
"""
