"""Software updates of the controller, on trial. What other subjects use of it stands here."""
