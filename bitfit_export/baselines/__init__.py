"""The baselines: one ordinary export per task, as a user has it without this project, and its time."""
