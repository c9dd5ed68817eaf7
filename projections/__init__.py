"""
Read models: what the logs say, arranged for those who ask.

`projection` is the contract, `source` reads the logs in batches, `runner` drives, `postgres` and `redis` are the two kinds of
store and `memory` the one of whoever replays, `state` is what they hold in one form, `version` which code made it, `rebuild` makes
a read model anew beside the one that answers, `catalog` lists them all; one module per read model.

Invariants:
    - a read model is a function of the positions it stands at: it can be deleted at any time and comes back equal, bit for bit;
    - changes and positions are committed together, so each event has its effect exactly once, whatever is killed when;
    - nothing here decides anything, and no decision reads from here.
"""
