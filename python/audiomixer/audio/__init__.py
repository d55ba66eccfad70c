"""What becomes of the mix: encoders, taps for whoever wants samples, and the metadata beside it."""
