"""The client side. Knows the API (`coordsvc.v1`) and nothing of how a replica works.

    client        the public client: a session, its operations, its watches
      operations    every operation, as a message and the future of its answer
      stream        keeps the session's stream: connects, moves frames, finds another replica
      conversation  what is said on it next, and what follows from what is heard; no sockets
        requests      order and numbers of requests, and what becomes of them
        watching      who is told of what, and from where it goes on after a break
        lifetime      how long the session certainly lives, by the own clock
    watch_stream  a watch without a session
    unary         single calls without a session, retried where that is safe: for commands

Importing this package alone imports nothing.
"""
