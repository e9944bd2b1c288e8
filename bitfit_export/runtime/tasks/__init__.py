"""The rows of the loaded tasks, as a run needs them."""
