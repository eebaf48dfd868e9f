"""Flower with tabs of our own: jobs, pools and queues as the ledger has them (promise P11).

Flower shows messages, which are hints. These tabs show the truth in the same process: Flower's
application takes further handlers, and a loader finds our templates before its own. Nothing of
Flower is patched.
"""
