"""Channel simulation (reverse channel coding): sending a sample of a distribution in about as many bits as it tells.

Both sides draw the same candidates of a proposal; the encoder picks one so that it follows the target, and sends its
number. `simulator` has the contract, `index_code` makes bytes of numbers. Page: docs/methods/channel_simulation.md.
"""
