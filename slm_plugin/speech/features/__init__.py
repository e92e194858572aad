"""Waves -> features of a self-supervised speech network -> the nearest of K centroids."""
