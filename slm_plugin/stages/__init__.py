"""What each training stage teaches; each file is a plugin."""
