"""How tensors are made cheap: one algorithm a file, the file named after the id that files carry."""
