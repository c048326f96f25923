"""Microcontrollers: TensorFlow Lite for Microcontrollers runs a file here as it would there."""
