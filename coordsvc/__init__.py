"""coordsvc: a coordination service with ZooKeeper's semantics and a gRPC API.

Importing this package imports neither grpc nor the replica's storage, so that a
client program pays only for what it uses.
"""

__version__ = "0.1.0"
