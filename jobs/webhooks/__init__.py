"""What is sent to webhook endpoints, where to, and when again: pure, with the time passed in."""
