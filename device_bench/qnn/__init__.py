"""Qualcomm's Hexagon NPU (HTP): compiled for by Qualcomm's compiler, answered for by its emulator."""
