"""What comes from the broker: checked and signed messages in, everything else refused (P12)."""
