"""What the compiler learns of a model's activations by running it on texts."""
