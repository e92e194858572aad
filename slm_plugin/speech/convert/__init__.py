"""Published files of speech networks, k-means and vocoders -> codec folders."""
