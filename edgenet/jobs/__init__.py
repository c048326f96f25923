"""What takes long, one file a command, and what all of them share: the output folder and the making of files."""
