"""Rooms and mixers spread over processes and machines, by Ray; the service itself mixes nothing then."""
