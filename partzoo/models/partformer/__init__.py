"""PartFormer: discovery of parts by the alignment of two representations."""
