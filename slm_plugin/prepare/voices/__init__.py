"""Synthesisers that speak text chats, each file a plugin."""
