"""What is sent and what is made of what comes: synthetic tracks and the watching of remote ones."""
