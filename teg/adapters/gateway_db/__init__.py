"""`gateway.db`: the archive, the outbox, dead letters, small state, the journal of the calls, in one database file."""
