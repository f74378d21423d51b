"""The `fewbits` command; importing it imports no torch."""
