"""The Redis side, and the only room that imports txredisapi.

`keys` and `scripts` are plain data and import no Twisted, so that worker processes share them.
"""
