"""Where the mix goes."""
