"""What a user has without this project: one ordinary export for each task, and how its time compares."""
