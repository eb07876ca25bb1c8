"""From z, the numbers that an optimizer sees, to the prompt that a backbone takes."""
