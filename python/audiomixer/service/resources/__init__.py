"""Rooms, MediaProcessors and PlayerStreamers: what is stored of them, what happens to them when, and who is told."""
