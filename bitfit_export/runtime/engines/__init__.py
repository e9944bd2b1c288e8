"""What executes a program at run time."""
