"""What is found out about a loaded model before its first row."""
