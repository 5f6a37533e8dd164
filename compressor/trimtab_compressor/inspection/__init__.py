"""What is in a model file: ONNX and TFLite are read into one description."""
