"""OpenAI-shaped HTTP routes, one file each."""
