"""
How a region's log reaches the other regions: bytes in order, each copy checked by whoever keeps it.

    relay.run_relay       publishes the own log to our NATS, answers for ranges of it, keeps what others acknowledge
    applier.run_applier   keeps a verified copy of one other region's log
    witness.run_witness   signs that log's heads, each once the copy has it
    closed.run_closed     completes the copy of a log that nobody writes any more
    checkpointer.run_checkpointer   signs the own log's heads, and collects such signatures

Code map, from the pure to the wired: `config` what both are told; `frame` how a run of entries travels; `chain` whether it
continues a copy; `wire` what else is said; `store` PostgreSQL, `link` NATS; `tail` and `publisher` make the relay, with
`ranges` and `watermarks`, which `geo` reads for others; `puller`, `fetching`
(long stretches by range) and `holders` (a log from another region than its origin) make the applier; `asking` (what an origin asks one region), `closing` (where a log ends that cannot be repaired) and `comparing` (what it does
before it may write) make checkpointer and witness; `keys` is how regions ask each other for data keys, which app.custody keeps. `schema` holds the tables.

Invariants:
    - NATS is transport: it may lose, repeat, reorder or corrupt anything, and may be wiped at any time;
    - nothing here has ever seen a ticket: bodies are bytes, but for the command they belong to.
"""
