"""What a server needs to be put in front of users: bounds, keys, metrics, traces, logs, the store of answers."""
