"""Routes, one noun per file: schema in, typed dependencies, one call, schema out. No SQL."""
