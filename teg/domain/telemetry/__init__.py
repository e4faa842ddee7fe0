"""Measurements: from the inbox to the archive to the server. What other subjects use of it stands here."""
