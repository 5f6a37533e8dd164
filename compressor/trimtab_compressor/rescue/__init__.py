"""The ladder of quantization: measure, and while too much accuracy is lost, do the next thing."""
