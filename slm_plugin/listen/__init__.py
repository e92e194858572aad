"""`slm units`: the units of one recording, and what they sound and look like."""
