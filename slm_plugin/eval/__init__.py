"""What a model can do, and what it has forgotten: probes, the matrix of skills and stages."""
