"""
`countroom replay`: reads logs that were verified, and hands their entries to `replay/`, which makes state of them.

    verified    logs at a target: checked as `countroom verify` does, then read again, leaf by leaf
    accounts    a player's account, as of a moment, between two, or as a page
    disclosed   a player's data keys, which a regulator was given
    figures     read models made again, as of a moment or at exact positions
    comparing   live read models and answers against the same made again
    following   a live log, entry by entry as it grows
    showing     what is printed; command puts all of it together

Invariant: nothing is shown of a log that was not found in order up to its end.
"""
