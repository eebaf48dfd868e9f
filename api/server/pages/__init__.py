"""The page at ``/``: jobs, pools, schedules and models for people (promises P9, P11, P12).

Handlers read what the JSON routes read, through the same dependencies, and render templates on the
server. There is no SQL here, and nothing from another origin in the browser. The rules of signing
in, forms and the content security policy: decision 0054.
"""
