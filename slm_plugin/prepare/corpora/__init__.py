"""Forms of corpora, each file a plugin."""
