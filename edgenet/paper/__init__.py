"""The EfficientNet paper's comparison: what was published, what was measured, and the page that has both."""
