"""The fault matrix: every fault at every part of an installation, under each kind of work.

``python -m benchmarks.fault_matrix [--only 'bulk/worker*'] [--again]`` starts real processes and
servers, submits a small job, makes one fault at a named moment, and measures how long the job takes
to go on and how much is done twice. ``cells`` has the matrix, ``page`` makes ``fault-matrix.md``.
"""
