"""Training and evaluation: programs that a host agent launches, with torch and Accelerate."""
