"""
`countroom export`: a directory that a regulator takes home, and can check without us (docs/reference/export.md).

    target      what is to be exported: the logs of a region, by URL, or of a database
    selection   which entries are chosen, and which streams are then complete
    plan        what was asked for, kept in the directory until it is finished, so that a second run goes on
    run         the work itself: copying makes whole logs and ranges, selecting chosen entries
    enclosed    what lies beside the logs: HOWTO.txt, check.py, schemas, manifest, sums
    disclosing  asking a region for data keys, encrypted to whoever shall read personal fields
    check       check.py itself: nothing of ours imports it, and it imports nothing of ours

Invariants:
    - only what hashes to the root of a published head is written;
    - what stands behind that head is left out, and how much that is, is told;
    - SHA256SUMS is written last: without it an export is not finished, and nothing takes it for one.
"""
