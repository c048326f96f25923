"""Quantization-aware training: a graph as a Keras model whose integers can learn."""
