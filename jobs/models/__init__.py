"""Models as files: what a folder holds, what it can do, and how a reference becomes one."""
