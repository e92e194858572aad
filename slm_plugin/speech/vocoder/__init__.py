"""Units -> waves: the unit HiFi-GAN of Seamless and its relatives."""
