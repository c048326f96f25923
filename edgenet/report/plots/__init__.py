"""Plots as inline SVG, written by hand: no library, no script, colours by CSS class."""
