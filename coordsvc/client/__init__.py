"""The client side. Knows the API (`coordsvc.v1`) and nothing of how a replica works.

`unary` makes single calls, retried at other replicas where that is safe; `session` keeps a session
alive and numbers its writes, so that those may be retried too. Import what you need from there:
importing this package alone imports nothing.
"""
