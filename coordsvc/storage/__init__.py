"""What is kept on disk: the write-ahead log, the data directory and their offline reader.

Knows files, bytes and checksums; knows nothing of peers, quorums, sessions or requests. A log
entry is an opaque payload with an index and a term (only `inspect` looks inside, to list it).
"""
