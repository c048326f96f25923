"""Files of strangers are read in a child process that can do no harm: `apart.read_apart` asks, child.py answers.

policy.py takes from the child what a reader does not need; wire.py carries plain values back, and nothing else.
"""
