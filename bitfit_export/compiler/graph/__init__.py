"""What several passes need to know of a graph, or to add to it."""
