"""ZooKeeper's own client protocol, as another front door: the same sessions, watches and tree."""
