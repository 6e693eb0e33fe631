"""The synthetic world that trains the bundled network, and the training itself."""
