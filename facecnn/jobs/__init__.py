"""What the commands do, callable from Python: each job takes settings and folders and gives back what it found.

``facecnn.cli`` reads the arguments, calls one of these and prints.
"""
