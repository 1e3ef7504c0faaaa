"""The replica as a server: configuration, front doors, request pipeline, session clock, wiring.

It decodes, checks, orders and waits; what a request *means* is decided in `core/` alone.
"""
