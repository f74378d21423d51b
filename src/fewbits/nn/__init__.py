"""What faces a PyTorch module: attaching a method to its weights."""
