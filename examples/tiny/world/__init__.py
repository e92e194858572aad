"""A closed world of 93 spoken words, small enough to teach a language model in minutes."""
