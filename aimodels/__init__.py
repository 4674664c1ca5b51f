"""The teaching code of the AI Models Handbook: one idea, one module."""
