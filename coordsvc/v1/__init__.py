"""The gRPC API `coordsvc.v1`: code generated from proto/coordsvc/v1/, committed as it comes.

Nothing here is written by hand but this file, and nothing is imported by it, so that the messages
(`*_pb2`) can be used without grpc. `make proto` generates the code anew, `make proto-check` tells
whether it is stale. What the API means is said in the comments of the .proto files.
"""
