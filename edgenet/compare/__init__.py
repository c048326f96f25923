"""`edgenet compare`: is the new model worse than the old one, as far as the data can tell? A gate for CI.

`job` opens two runs and puts findings together; `pairs` says which files belong together; `accuracy`, `latency` and
`structure` look at one pair, each a pure function; `text` makes sentences of findings, and `junit`, `github` and
`markdown` write them for other programs; `options` has what the command line takes, `nouns` what all share.
"""
