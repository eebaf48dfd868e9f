"""The one reader: what the API, the command line and the control loop look up."""
