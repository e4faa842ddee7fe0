"""Remote calls: at most once, answered with what happened. What other subjects use of it stands here."""
