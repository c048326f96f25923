"""Coral's Edge TPU: its compiler, a check without it, and the stick."""
