"""`edgenet run --dry-run`: what a run would do, without doing it.

`plan` looks and says which files, devices and pictures there would be; `times` estimates the steps, from what was
measured a moment ago or by an earlier run; `text` is for the terminal.
"""
