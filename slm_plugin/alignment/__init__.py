"""When each word of a recording is spoken."""
