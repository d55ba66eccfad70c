"""Who may join, and who may play: tokens, and what is asked at the doors."""
