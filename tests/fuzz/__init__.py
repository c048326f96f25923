"""Fuzzing of every reader of what others made: `make fuzz`, `python -m fuzz.run` in tests/, and test_fuzz.py."""
