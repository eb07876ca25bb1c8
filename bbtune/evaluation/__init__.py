"""From z to losses: here, or on Ray actors."""
