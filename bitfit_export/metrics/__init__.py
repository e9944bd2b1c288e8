"""Metrics of answers that training and a device both count: entities in tags, and answers to questions."""
