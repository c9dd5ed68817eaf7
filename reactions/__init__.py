"""
Process managers: an event, or a due time, becomes a command.

`pending` reads what is to be done, `timers` fires what is due, `payouts` has providers pay what was approved, `notices` raises
what rules have found, `protection` shuts a person's other accounts out, `registers` asks again those that were silent, `runner`
drives them and is patient with what fails.

Invariants:
    - what is pending is a read model, so nothing is lost with the process, and a successor has it;
    - everything is done at least once, and by its command id has one effect;
    - only the owner of a partition acts for it.
"""
