"""The composition root: puts the parts together; may import everything, and nothing below imports it."""
