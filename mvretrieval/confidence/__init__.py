"""How sure a hit is: from its cosine to the probability that it is of the question's kind."""
