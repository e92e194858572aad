"""K-means over the features of recordings, resumable."""
