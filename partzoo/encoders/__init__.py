"""Backbones behind one contract: pictures in, patch tokens and feature maps out."""
