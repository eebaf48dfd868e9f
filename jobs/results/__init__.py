"""Results of bulk jobs: schemas of shards and parts, output files, pages, and their proof."""
