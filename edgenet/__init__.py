"""edgenet: take a trained image classifier to a phone, a board or an edge accelerator, and prove what it cost."""

__version__ = "0.1.0"
