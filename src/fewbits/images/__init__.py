"""Universally quantised learned image codecs. Empty until the first one is built."""
