"""Text to token ids, and tokens back to words."""
