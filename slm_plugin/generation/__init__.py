"""Text generation over whole lists of prompts, by transformers or by vLLM."""
