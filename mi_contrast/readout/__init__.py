"""What frozen features are worth: neighbours, linear classifiers, accuracy with its interval, geometry."""
