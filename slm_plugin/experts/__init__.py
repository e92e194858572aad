"""Average of domain experts: models trained in parallel from one parent, averaged, round after round."""
