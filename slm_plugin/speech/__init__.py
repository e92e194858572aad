"""Speech and units: codecs, recordings, words in time."""
