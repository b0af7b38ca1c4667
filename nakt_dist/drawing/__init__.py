"""How pictures look: the style of figures, and sheets of images with what is drawn on them."""
