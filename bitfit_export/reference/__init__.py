"""A task in PyTorch, biases merged: what every bundle is compared with."""
