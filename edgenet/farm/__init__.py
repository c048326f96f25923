"""Evaluation, searches and benches on this machine or on many, behind one function.

`answers` is the program that counts what files answer, here and on every worker; `schedule` gives work out, again where
a worker is lost, and puts what comes back in order; `site` is what runs on a worker, `cluster` speaks to Ray, `job` is
what commands use.
"""
