"""The text decoder of a vision-language model as a model of its own, of a kind that every engine loads."""
