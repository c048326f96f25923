"""Rewrites of a quantized graph for one runtime, which leave its integers as they are: called by its writer."""
