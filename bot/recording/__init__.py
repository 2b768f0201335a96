"""A job: files of a meeting, every source as it comes, that a crash can't lose."""
