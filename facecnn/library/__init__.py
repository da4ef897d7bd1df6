"""What ``import facecnn`` offers: the jobs of the command line as functions, for photos on the disk or in memory.

Nothing is printed unless asked for, no signal handler and no environment variable is set, and numbers of threads that
are set for a call are restored after it. Names are imported where they are first used: see ``facecnn/__init__.py``.
"""
