"""Pure decisions: no clock, no database, no broker. Time and facts are passed in."""
