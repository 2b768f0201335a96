"""What a load run leaves behind: JSON, a page, JUnit XML, a summary, and what changed since another."""
