"""The memories: one engine a file, all async, none knows another or any framework."""
