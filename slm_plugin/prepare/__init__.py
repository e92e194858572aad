"""`slm prepare`: corpora of recordings, or text chats that are spoken, as rows of units."""
