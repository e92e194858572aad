"""What keeps earlier skills alive; each file is a plugin."""
