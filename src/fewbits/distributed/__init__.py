"""Encoding on many machines, training on many workers. Empty: one machine's workers are in `fewbits.encode`."""
