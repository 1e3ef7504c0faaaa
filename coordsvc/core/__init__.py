"""The state machine: pure and deterministic.

What lives here reads replicated state and the command it is given, nothing else: no clock, no
randomness, no files, no environment, no `hash()`, no set order. The same entries in the same
order give the same bytes on every replica, whatever its Python's hash seed or time zone.
It imports the standard library, msgspec, `coordsvc.errors` and `coordsvc.paths`.
"""
