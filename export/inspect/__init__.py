"""What a model file really is, read from the file itself: `inspect(path)`."""

from edgenet.export.inspect.read import first_bytes, inspect, lines, looks_like, multiply_adds

__all__ = ["first_bytes", "inspect", "lines", "looks_like", "multiply_adds"]
