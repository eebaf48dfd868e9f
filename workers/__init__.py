"""How work is done: Celery app, control loop, planner, inference engine."""
