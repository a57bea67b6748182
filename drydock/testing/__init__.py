"""What tests of Drydock, of its stores and of its kinds are made of."""
