"""What goes wrong under a store: at every statement of every operation, and when the disk is full."""
