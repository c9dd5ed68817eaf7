"""
The write side: one module per context. A handler describes a command (what it needs, who may, what is decided, what is
answered); the decider loads, authorises, decides and appends, many at a time.
"""
