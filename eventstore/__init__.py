"""
The log: one append-only, hash-chained sequence of entries per region, in PostgreSQL.

`record` is what an entry is made of, `log` the contract of a log, `postgres` and `memory` the two logs that keep it, `writer`
the group commit in front, `vault` the keys of personal fields, `schema` the SQL (its functions are the only doors to the tables).
"""
