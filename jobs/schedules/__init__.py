"""When schedules fire and which of their fires become jobs: pure, with the time passed in."""
