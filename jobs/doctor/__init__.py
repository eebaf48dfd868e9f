"""``nightshift doctor``: whether an installation has all that it needs, seen from this machine.

Each check gathers facts within a time limit; pure functions judge them. A finding says what is so
and, unless all is well, what to do. No finding has a password or a key in it.
"""
