"""Model weights on disk: read tensor by tensor, written tensor by tensor, never half-written."""
