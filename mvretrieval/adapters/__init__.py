"""What is learnt from labelled objects: view weights and a linear layer on top of frozen view vectors."""
