"""Two model files side by side: what they answer, and what they are made of."""
