"""What several rooms of tests build on."""
