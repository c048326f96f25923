"""Any model file to the graph: find.py looks what it is, a module a format reads it, fuse.py tidies."""
