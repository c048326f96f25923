"""What tests share: a tiny network, test devices, and results built by hand."""
