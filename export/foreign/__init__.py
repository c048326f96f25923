"""What strangers' files hold, read in a child process: readers.py runs there, plain_graph.py checks what comes back."""
