"""Templates of what `edgenet handoff` writes; {{NAME}} stands for what is read from the model file."""
