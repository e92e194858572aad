"""Built-in probes: each module scores one kind of skill and registers itself."""
