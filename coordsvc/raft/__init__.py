"""Consensus: drives PySyncObj without trusting it. The only importer of pysyncobj.

`replica.py` is what the server talks to; `node.py` holds the Raft rules, `adapter.py` every private
name of the library. This package knows entries as bytes and `core` as the thing that applies them;
it knows neither sessions nor gRPC.
"""
