"""Merging of models that share a parent: each method is a plugin."""
