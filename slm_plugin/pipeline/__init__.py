"""Stages, exports and evaluations in sequence."""
