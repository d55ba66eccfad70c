"""WebRTC by aiortc, with the mixer's own way in for packets."""
