"""The networks: the zoo, their weights, and drawings of others without TensorFlow."""
