"""
The verifier: what a regulator installs to check a casino's books without trusting anyone who runs them.

The casino records every fact (a player registered, a limit was set, money moved) as an entry of a log, and each entry
holds the fingerprint of the one before. The verifier reads a log from its first entry and recomputes every fingerprint:
a fact that was changed, removed, inserted or moved afterwards does not fit, and the verifier names the first such place.

Invariants:
    - it is an independent reading of the published format and shares no code with the product that writes the logs;
    - "intact" is said only of what was read in full: whatever could not be read is reported as not checked;
    - nothing that a log or a region says is trusted, executed, or printed unescaped;
    - it only reads, and sends the access token to no other place than the one named.

`log` checks one log, `source` reads a running region, `cli` is the program. `log` rests on `ijson` and `body` (what one
entry may say), `quick` (the same at speed), `book` (what may follow what) and `faults` (what is wrong).

What the log's keeper signs is checked after the open C2SP documents, by parts that know nothing of casinos: `merkle` (the
tree over a log, its root, proofs about it), `tiles` (that tree as static files), `note` (signed texts, tree heads,
witnesses), `policy` (whose signatures are wanted), `proof` (all of it in one file), `encoding` (how they spell values).
"""
