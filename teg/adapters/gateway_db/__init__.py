"""`gateway.db`: the archive, the outbox, dead letters, small state and the call ledger, behind one database file."""
