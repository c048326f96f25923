"""NPUs that LiteRT compiles a .tflite for ahead of time, through a plugin of the vendor's."""
