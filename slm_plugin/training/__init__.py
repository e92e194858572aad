"""What mitigations calculate with while a stage trains: parts of a model, its start, a teacher, rates."""
