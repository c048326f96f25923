"""What a model file really is, read from the file itself: `inspect(path)`."""

from edgenet.export.inspect.read import inspect, lines, looks_like, multiply_adds

__all__ = ["inspect", "lines", "looks_like", "multiply_adds"]
