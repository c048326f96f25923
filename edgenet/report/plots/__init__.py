"""Plots as inline SVG, and the confusion matrix as a table, by hand: no library, no script, colours by CSS class."""
