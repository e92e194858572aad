"""`slm doctor`: what is installed, what is missing, and what a recipe would need."""
