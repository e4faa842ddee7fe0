"""Remote files: what the server wants on disk. What other subjects use of it stands here."""
