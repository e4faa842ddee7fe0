"""The annex of `gateway.py`: the concrete parts, by subject. Imported by gateway.py only."""
