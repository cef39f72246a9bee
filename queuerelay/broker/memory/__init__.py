"""The broker without a Redis, for tests; the same parts as in `queuerelay.broker.redis`.

`store` is what one Redis holds, `connection` comes and goes, and answers turn by turn. The parts
have a module each, and `broker` puts them together, with controls to break their promises with.
"""
