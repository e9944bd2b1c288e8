"""Reverse mode over a graph: the gradients of a loss as further nodes of the same graph."""
