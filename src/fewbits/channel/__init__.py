"""Channel simulation (reverse channel coding): sending a sample of a distribution. Empty until a method needs it."""
