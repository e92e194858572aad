"""Everything that touches LLaMA-Factory, and nothing else does."""
