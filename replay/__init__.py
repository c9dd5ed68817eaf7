"""
State from a verified stream alone: what a regulator makes of logs without our database.

    ownership   which entries count, folded from what the logs say of who owned what
    moment      how far each log is looked at: up to a position, a time, or what another region provably knew
    account     everything that concerns one player, and the account that follows from it
    timeline    the same as rows that a person reads
    difference  what two states have not in common
    evidence    from which logs, how far, and what was found when they were checked
    page        the timeline as one HTML file

Invariants:
    - pure: entries come in as values, nothing is read from a database, a network or a clock;
    - an entry that does not count is shown and never folded;
    - what cannot be read to its end by this release is an error, never a state.
"""
