"""The agent of a training host: takes one rank of a run at a time and answers for it."""
