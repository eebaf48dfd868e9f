"""The one writer: every statement that moves a state stands in this room, one file per noun.

Each function takes a session, does one short piece of work in the caller's transaction, and
guards every move by id, state and fence. Zero rows updated means that somebody else was faster.
"""
