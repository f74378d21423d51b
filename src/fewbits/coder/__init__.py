"""The entropy coder: symbols and integers to bytes and back, in integer arithmetic."""
