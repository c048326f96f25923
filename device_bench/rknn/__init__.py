"""Rockchip's NPUs: rknn-toolkit2 in an environment of its own, which compiles for the chips and simulates them."""
