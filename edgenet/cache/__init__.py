"""What was computed once and is needed again: steps of a run, kept by what went into them.

`store` keeps them in files that only edgenet makes, `answers` what files said to pictures, `listing` shows and removes.
"""
