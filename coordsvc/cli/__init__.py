"""The command line: one command per file, `main.py` puts them together.

Commands that talk to a cluster use `coordsvc.client` and nothing of the server; `serve`, `dev` and
`inspect` are the only ones that import what a replica is made of, and only when they run.
"""
