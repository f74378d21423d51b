"""Entropy models; all end in integer tables."""
