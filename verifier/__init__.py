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

`log` checks one log, `source` and `tiled` find it, `cli` is the program. `log` rests on `ijson` and `body` (what one entry
may say), `quick` (the same at speed), `book` (what may follow what), `faults` (what is wrong); and, for whole logs, on
`sheet` (a page by itself), `parallel` (several at once), `growth` (the tree over them) and `signed` (the heads).

What the log's keeper signs is checked after the open C2SP documents, by parts that know nothing of casinos: `merkle` (the
tree over a log, its root, proofs about it), `tiles` (that tree as static files), `note` (signed texts, tree heads,
witnesses), `policy` (whose signatures are wanted), `proof` (all of it in one file), `encoding` (how they spell values).

`export` opens what a regulator took home, and `exported` checks it.

`witness` signs the heads of logs that only grow, so that nobody can be shown a second history; `witnessing` is the server
around it that a regulator runs. They read no log, and write only into a folder of their own.
"""
