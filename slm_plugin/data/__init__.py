"""Mixing rows of earlier tasks, and reading rows."""
