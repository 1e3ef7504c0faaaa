"""Test tools that are shipped, because users of the service need them as much as its own tests."""
