"""What a finished or half-finished run looks like: one page, its numbers as JSON and a table in Markdown."""
