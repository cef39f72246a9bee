"""The worker side: runs at most N scripts at a time and judges them by their exit status.

Pure, without reactor or clock: `command` (argv, environment), `output` (bounded capture), `exits`
(what an exit means and what comes next), `sizing` and `priority`.
"""
