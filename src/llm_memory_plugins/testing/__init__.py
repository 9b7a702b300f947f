"""For tests, ours and yours: the suite each port must pass, and servers and models to stand in for paid ones."""
