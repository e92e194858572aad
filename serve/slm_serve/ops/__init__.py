"""What a server needs to be put in front of users: bounds, keys, metrics, logs, replicas, experts."""
