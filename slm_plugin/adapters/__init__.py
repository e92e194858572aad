"""LoRA adapters on disk: what they add to a base, scaled, folded in, and made fit for vLLM."""
