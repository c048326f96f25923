"""`edgenet history`: runs in a database, and a page that shows how each file did from run to run.

`store` keeps runs in SQLite and trusts no database; `kept` says which part of a run is kept; `figures` reads the
numbers of a run that have a trend, `marks` asks edgenet.compare whether one is worse than in the run before, `trends`
puts both in order; `text` is the table of the terminal, `plot` draws a trend, and `page` fills `templates/`. `job` does
what the command is asked for, and `options` has what the command line takes.
"""
