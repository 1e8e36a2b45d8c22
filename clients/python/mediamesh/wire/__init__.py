"""What both ends of a call share: errors, JSON forms, names."""
