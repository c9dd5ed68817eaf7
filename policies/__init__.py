"""Rules as data, loaded and typed. Legal values will come from the rules table only, never from memory."""
