"""Steps, rounding and reconstruction."""
